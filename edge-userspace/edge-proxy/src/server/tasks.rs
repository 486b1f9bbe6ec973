//! The tasks of hyper's on a worker's own thread, and a handle of those that send a stream of another protocol: hyper
//! starts them, and lends nobody a way to reset the stream.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::task::AbortHandle;

thread_local! {
    /// Whoever is given the next task.
    static AWAITED: RefCell<Option<Rc<SendTask>>> = const { RefCell::new(None) };
}

/// Runs what hyper asks for, such as the streams of HTTP/2, as tasks of the worker's own thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalExec;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExec {
    fn execute(&self, future: F) {
        let task = tokio::task::spawn_local(future);
        if let Some(awaiting) = AWAITED.take() {
            awaiting.0.replace(Some(task.abort_handle()));
        }
    }
}

/// The task that sends what is written to a client's stream of another protocol (RFC 8441).
#[derive(Debug, Default)]
pub(crate) struct SendTask(RefCell<Option<AbortHandle>>);

impl SendTask {
    /// The one of the stream whose response is returned to hyper next: it starts the task as soon as it has that, before
    /// anything else runs.
    pub(crate) fn of_next_response() -> Rc<Self> {
        let task = Rc::new(Self::default());
        AWAITED.set(Some(Rc::clone(&task)));
        task
    }

    /// hyper has had its response: a task that it has not started by now will not come.
    pub(crate) fn response_is_over() {
        AWAITED.set(None);
    }

    /// Ends the task before it has ended its stream: once its reading side is dropped, too, what was handed over is sent,
    /// and behind it RST_STREAM with CANCEL, which stands for TCP's reset (RFC 8441 section 5).
    pub(crate) fn abort(&self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}
