//! Keeps the workers' entries true to the kernel's routes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use edge_common::route::Lookup;
use edge_common::{Address, maps as names, worker};

use crate::error::errno;
use crate::kernel::Kernel;
use crate::next_hops::{Answers, NextHops, asked_for};
use crate::pools::Pools;
use crate::syncookies::Answered;
use crate::ways::{Ingress, NOTHING_COMES, NextHop};
use crate::{Error, devices, sys};

/// How long what was found is good if nobody looks any more: the process has ended, or hangs.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// How long a change of configuration waits for the MAC addresses of new workers. Who is there answers in a millisecond.
const RESOLVING: Duration = Duration::from_millis(300);

impl Kernel {
    /// Follows the routes to workers from now on, for packets that come by these devices.
    pub(crate) fn follow_routes(&mut self, ingress: Vec<Ingress>) -> Result<(), Error> {
        let program: &mut Xdp = self.program(names::ROUTE_PROGRAM)?;
        program.load().map_err(Error::program(names::ROUTE_PROGRAM))?;
        self.next_hops = Some(NextHops::open(ingress)?);
        Ok(())
    }

    /// Looks at what the kernel told, and at everything if that is due, and writes what has changed into the workers'
    /// entries.
    pub(crate) fn keep_routes(&mut self) -> Result<(), Error> {
        let Some(next_hops) = &mut self.next_hops else {
            return Ok(());
        };
        let (told, is_due) = (next_hops.hear(), next_hops.is_due());
        self.offers.note(told);
        let follows = !wanted(&self.image.pools).is_empty() || !next_hops.is_idle();
        let allows = !self.devices.is_empty() && told.of_ways;
        if !follows && !allows && self.offers.answered == Answered::None {
            return Ok(());
        }
        if !told.of_ways && !is_due {
            return Ok(());
        }
        let devices = devices::all().map_err(|source| Error::Devices { source })?;
        next_hops.devices.clone_from(&devices);
        if !self.devices.is_empty() {
            self.allow_devices(&devices)?;
        }
        self.keep_offers()?;
        let changed = self.look(None)?;
        if let Some(next_hops) = self.next_hops.as_mut().filter(|_| is_due) {
            next_hops.tell();
        }
        self.write_workers(&changed)
    }

    /// Says what the routes would say of an address, where there is no interface to ask for.
    pub(crate) fn pretend(&mut self, address: IpAddr, hop: NextHop) -> Result<(), Error> {
        self.hops.insert(address, hop);
        self.maps.write_watched_until(u64::MAX)?;
        self.write_workers(&[address].into())
    }

    /// Writes the entries of workers at these addresses anew.
    fn write_workers(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), Error> {
        let is_meant = |entry: &worker::Entry| asked_for(entry).is_some_and(|at| addresses.contains(&at));
        let meant = self
            .image
            .pools
            .workers
            .iter()
            .filter(|(_, entry)| is_meant(entry));
        for (index, entry) in meant.map(|(&index, &entry)| (index, entry)).collect::<Vec<_>>() {
            self.write_worker(index, entry)?;
        }
        Ok(())
    }

    /// Looks for the next hops of workers that are to be written, and waits a moment for the MAC addresses of new ones.
    pub(crate) fn find_routes(&mut self, pools: &Pools) -> Result<(), Error> {
        let Some(next_hops) = &self.next_hops else {
            return Ok(());
        };
        let wanted = wanted(pools);
        if wanted.is_empty() && next_hops.is_idle() {
            return Ok(());
        }
        let mut open: BTreeSet<_> = wanted
            .iter()
            .copied()
            .filter(|&address| !next_hops.has(address))
            .collect();
        let deadline = Instant::now() + RESOLVING;
        let mut changed = self.look(Some(&wanted))?;
        loop {
            self.write_workers(&changed)?;
            let next_hops = self.next_hops.as_ref();
            open.retain(|&address| next_hops.is_some_and(|next_hops| next_hops.is_open(address)));
            if open.is_empty() || Instant::now() >= deadline {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
            changed = self.look_again(&open)?;
        }
    }

    /// Writes a worker's entry with the next hop that was found for it.
    pub(crate) fn write_worker(&mut self, index: u16, entry: worker::Entry) -> Result<(), Error> {
        let hop = asked_for(&entry).and_then(|address| self.hops.get(&address));
        let entry = hop.map_or(entry, |hop| hop.complete(entry));
        if entry.interface != 0 {
            self.allow_device(entry.interface)?;
        }
        self.maps.write_worker(index, &entry)
    }

    /// Asks for the ways to all workers, or to these addresses too; the answer is those whose way is another than before.
    fn look(&mut self, more: Option<&BTreeSet<IpAddr>>) -> Result<BTreeSet<IpAddr>, Error> {
        let mut addresses = wanted(&self.image.pools);
        addresses.extend(more.into_iter().flatten());
        let answers = self.ask_for(&addresses)?;
        let now = answers.values().flatten().map(|(_, lookup)| lookup.now).max();
        let Some(next_hops) = &mut self.next_hops else {
            return Ok(BTreeSet::new());
        };
        let changed = next_hops.note_all(&answers);
        self.hops = next_hops.known().collect();
        if let Some(now) = now {
            self.maps.write_watched_until(now + sys::jiffies(GOOD_FOR))?;
        }
        Ok(changed)
    }

    /// Asks for the ways to a few of the addresses that were asked for before.
    fn look_again(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<BTreeSet<IpAddr>, Error> {
        let answers = self.ask_for(addresses)?;
        let Some(next_hops) = &mut self.next_hops else {
            return Ok(BTreeSet::new());
        };
        let (changed, _) = next_hops.note(&answers);
        self.hops = next_hops.known().collect();
        Ok(changed)
    }

    /// Asks for each address once for each device that packets come by.
    fn ask_for(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<Answers, Error> {
        let ingress = self.next_hops.as_ref().map(|next_hops| next_hops.ingress.clone());
        let ingress = ingress.unwrap_or_default();
        let mut answers = Answers::new();
        for &address in addresses {
            for &ingress in &ingress {
                let lookup = self.ask(ingress.device, address)?;
                answers.entry(address).or_default().push((ingress, lookup));
            }
        }
        Ok(answers)
    }

    /// Runs the data path's own program on a question.
    fn ask(&mut self, device: u32, address: IpAddr) -> Result<Lookup, Error> {
        let failed = |source| Error::TestRun {
            len: size_of::<Lookup>(),
            source: Box::new(source),
        };
        let mut bytes = [0; size_of::<Lookup>()];
        let words = Address::from(address).0.map(u32::to_ne_bytes);
        bytes[..size_of::<Address>()].copy_from_slice(words.as_flattened());
        let mut answer = bytes;
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, bytes.len() as u32, 0, device, 0, 0].map(u32::to_ne_bytes);
        let program: &mut Xdp = self.program(names::ROUTE_PROGRAM)?;
        let run = program.test_run(TestRunOptions {
            data_in: Some(&bytes),
            data_out: Some(&mut answer),
            ctx_in: Some(context.as_flattened()),
            ..Default::default()
        });
        match run {
            Ok(_) => Ok(read(&answer)),
            Err(error) => match errno(&error) {
                Some(libc::ENODEV | libc::EINVAL | libc::ENXIO) => Ok(Lookup {
                    answer: NOTHING_COMES,
                    ..read(&bytes)
                }),
                _ => Err(failed(error)),
            },
        }
    }
}

/// An answer as it stands in the frame.
fn read(bytes: &[u8; size_of::<Lookup>()]) -> Lookup {
    let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|byte| bytes[4 * at + byte]));
    let address = |at: usize| Address(std::array::from_fn(|index| word(at + index)));
    Lookup {
        address: address(0),
        next_hop: address(4),
        interface: word(8),
        answer: word(9) as i32,
        macs: std::array::from_fn(|byte| bytes[40 + byte]),
        padding: word(13),
        now: u64::from_ne_bytes(std::array::from_fn(|byte| bytes[56 + byte])),
    }
}

/// The addresses that are asked for on the ways to the workers of pools.
fn wanted(pools: &Pools) -> BTreeSet<IpAddr> {
    pools.workers.values().filter_map(asked_for).collect()
}
