//! A worker's thread, and the commands it takes.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use edge_model::{ListenAddress, WorkerId};
use rustix::thread::CpuSet;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::accept::Port;
use super::{Drain, Shared, Worker};
use crate::config::ListenerConfig;

/// How often connections are looked over for timeouts, which are counted in seconds.
const SWEEP: Duration = Duration::from_secs(1);

/// Looks over the connections within one drain-idle time.
const SWEEPS_PER_DRAIN_IDLE: u32 = 4;

/// What a worker is asked to do.
pub(crate) enum Command {
    /// Accept on an address from now on.
    Listen {
        address: ListenAddress,
        listener: std::net::TcpListener,
        config: Arc<ListenerConfig>,
    },
    /// Tell clients to go elsewhere, and go on taking those that come.
    Leave,
    /// Accept what the address's queue holds, and no more.
    Close { address: ListenAddress },
    /// Close all ports, bring connections to their end until the deadline, and end. Answers with how many
    /// connections were cut with a request on them.
    Drain {
        deadline: Instant,
        done: oneshot::Sender<usize>,
    },
}

/// Starts a worker's thread; it ends after a drain, or when the sender of its commands is gone.
pub(crate) fn spawn(
    id: WorkerId,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedReceiver<Command>,
) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name(format!("worker-{}", id.0))
        .spawn(move || {
            if shared.options.pin_to_cores
                && let Err(error) = pin(id)
            {
                tracing::warn!(worker = id.0, %error, "cannot pin the worker to a core");
            }
            let worker = Rc::new(Worker::new(id, shared));
            LocalSet::new().block_on(&runtime, Running::new(Rc::clone(&worker)).run(commands));
            // With those of requests that were cut as their tasks were dropped.
            worker.hand_over_lines();
        })
}

/// Binds the thread to the n-th of the cores that the process may use.
fn pin(id: WorkerId) -> rustix::io::Result<()> {
    let allowed = rustix::thread::sched_getaffinity(None)?;
    let cores: Vec<_> = (0..CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect();
    let core = cores
        .get(usize::from(id.0) % cores.len().max(1))
        .copied()
        .unwrap_or(0);
    let mut only = CpuSet::new();
    only.set(core);
    rustix::thread::sched_setaffinity(None, &only)
}

/// A worker at work.
struct Running {
    worker: Rc<Worker>,
    ports: HashMap<ListenAddress, OpenPort>,
    /// Ports that are emptying their queues.
    closing: Vec<tokio::task::JoinHandle<()>>,
}

struct OpenPort {
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn new(worker: Rc<Worker>) -> Self {
        Self {
            worker,
            ports: HashMap::new(),
            closing: Vec::new(),
        }
    }

    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let timed = Rc::clone(&self.worker);
        tokio::task::spawn_local(async move { timed.timers().run().await });
        let parking = Rc::clone(&self.worker);
        tokio::task::spawn_local(async move { parking.park().await });
        let logging = Rc::clone(&self.worker);
        tokio::task::spawn_local(async move { logging.log_in_time().await });
        let mut sweeps = tokio::time::interval(SWEEP);
        loop {
            let command = tokio::select! {
                command = commands.recv() => command,
                _ = sweeps.tick() => {
                    self.worker.sweep();
                    // Also takes up a new configuration where no request does.
                    self.worker.view();
                    continue;
                }
            };
            match command {
                Some(Command::Listen {
                    address,
                    listener,
                    config,
                }) => self.listen(address, listener, config),
                Some(Command::Close { address }) => self.close(address),
                Some(Command::Leave) => {
                    self.worker.drain.set(Drain::Leaving);
                    self.worker.sweep();
                }
                Some(Command::Drain { deadline, done }) => {
                    let cut = self.drain(deadline).await;
                    // The one who asked may have gone; the worker ends all the same.
                    let _ = done.send(cut);
                    return;
                }
                None => return,
            }
        }
    }

    fn listen(
        &mut self,
        address: ListenAddress,
        listener: std::net::TcpListener,
        config: Arc<ListenerConfig>,
    ) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%address, %error, "cannot watch the listening socket");
                return;
            }
        };
        let port = Port {
            worker: Rc::clone(&self.worker),
            address: Rc::new(address),
            listener,
            config,
            starved: None,
            made_room: None,
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::task::spawn_local(port.run(stopped));
        self.ports.insert(address, OpenPort { stop, task });
    }

    fn close(&mut self, address: ListenAddress) {
        self.closing.retain(|task| !task.is_finished());
        if let Some(port) = self.ports.remove(&address) {
            // A port that has ended by itself has nothing left to stop.
            let _ = port.stop.send(());
            self.closing.push(port.task);
        }
    }

    async fn drain(&mut self, deadline: Instant) -> usize {
        self.worker.sweep();
        self.worker.drain.set(Drain::Ending);
        let ports: Vec<_> = self.ports.keys().copied().collect();
        for port in ports {
            self.close(port);
        }
        let closing = std::mem::take(&mut self.closing);
        let ended = async {
            for port in closing {
                let _ = port.await;
            }
            while !self.worker.connections.borrow().is_empty() {
                self.worker.closed.notified().await;
            }
        };
        let sweeping = async {
            let pause = self.worker.timeouts().drain_idle / SWEEPS_PER_DRAIN_IDLE;
            loop {
                tokio::time::sleep(pause).await;
                self.worker.sweep();
            }
        };
        tokio::select! {
            () = ended => {}
            () = sweeping => {}
            () = tokio::time::sleep_until(deadline.into()) => {}
        }
        let connections = self.worker.connections.borrow();
        connections.values().filter(|conn| conn.is_in_use()).count()
    }
}
