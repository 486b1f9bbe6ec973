//! Where requests and connections go to: which series of Istio's standard metrics each destination has, and who counts in
//! them.
//!
//! Their number is bounded. Of one destination there are so many as [`MOST`] says, however many statuses its endpoints
//! answer with. Destinations come and go with configurations: those that no worker's view has any more leave once what
//! they left is more than [`MOST_GONE`], the longest gone first.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Labels;
use super::connections::{TcpMetrics, TcpSeries};
use super::counting::Counting;
use super::messages::{MessageMetrics, MessageSeries};
use super::requests::{Key, Kind, Observed, RequestMetrics, Series};
use crate::http::Flags;

/// Most series of requests to one destination, of each metric. Endpoints that answer in more ways than this get the others
/// counted under code 0, so that none can fill the memory with its statuses.
const MOST: usize = 128;

/// Where requests are counted whose own series would be one too many.
const REST: Key = (0, Flags::NONE, Kind::Http);

/// Most series of destinations that are gone, of each metric. They are kept that long so that what was counted last is
/// still scraped, and so that a destination that comes back counts on; with their histograms they take a few megabytes.
const MOST_GONE: usize = 1024;

/// The destinations of all workers.
#[derive(Debug)]
pub(crate) struct Destinations {
    requests: RequestMetrics,
    messages: MessageMetrics,
    tcp: TcpMetrics,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Those who count are caches: one for each endpoint, in each worker's view.
    destinations: Counting<Arc<Labels>, Destination>,
    /// Series of those that are gone.
    gone_series: usize,
}

#[derive(Debug, Default)]
struct Destination {
    requests: Vec<Key>,
    /// Whether calls of gRPC have gone there.
    has_messages: bool,
    /// Response flags of connections. They are few: the gateway alone sets flags.
    tcp: Vec<Flags>,
}

impl Destination {
    /// How many series it has.
    fn series(&self) -> usize {
        self.requests.len() + usize::from(self.has_messages) + self.tcp.len()
    }
}

impl Destinations {
    /// None yet.
    pub(super) fn new(requests: RequestMetrics, messages: MessageMetrics, tcp: TcpMetrics) -> Arc<Self> {
        Arc::new(Self {
            requests,
            messages,
            tcp,
            known: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Whoever panicked under the lock left at worst a destination that never leaves.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more counts for a destination.
    fn enter(&self, labels: Labels) -> Arc<Labels> {
        let mut known = self.lock();
        let (labels, back) = known.destinations.enter(Arc::new(labels));
        let series = back.map_or(0, Destination::series);
        known.gone_series -= series;
        labels
    }

    /// The series of requests with a key, or, where there are too many, that of the rest.
    fn requests(&self, labels: &Arc<Labels>, key: Key) -> (Key, Series) {
        let mut known = self.lock();
        let mut key = key;
        // Whoever asks has entered.
        if let Some(Destination { requests, .. }) = known.destinations.get_mut(labels)
            && !requests.contains(&key)
        {
            if requests.len() >= MOST {
                key = REST;
            }
            if !requests.contains(&key) {
                requests.push(key);
            }
        }
        // Under the lock, so that none is removed meanwhile.
        (key, self.requests.series(labels, key))
    }

    /// The series of messages of gRPC.
    fn messages(&self, labels: &Arc<Labels>) -> MessageSeries {
        let mut known = self.lock();
        if let Some(destination) = known.destinations.get_mut(labels) {
            destination.has_messages = true;
        }
        self.messages.series(labels)
    }

    /// The series of connections with these flags.
    fn tcp(&self, labels: &Arc<Labels>, flags: Flags) -> TcpSeries {
        let mut known = self.lock();
        if let Some(Destination { tcp, .. }) = known.destinations.get_mut(labels)
            && !tcp.contains(&flags)
        {
            tcp.push(flags);
        }
        self.tcp.series(labels, flags)
    }

    /// One less counts for a destination.
    fn leave(&self, labels: &Arc<Labels>) {
        let mut known = self.lock();
        match known.destinations.leave(labels).map(Destination::series) {
            None => {}
            Some(0) => known.destinations.remove(labels),
            Some(series) => known.gone_series += series,
        }
        while known.gone_series > MOST_GONE
            && let Some((labels, gone)) = known.destinations.remove_oldest()
        {
            known.gone_series -= gone.series();
            gone.requests
                .iter()
                .for_each(|key| self.requests.remove(&labels, *key));
            if gone.has_messages {
                self.messages.remove(&labels);
            }
            gone.tcp.iter().for_each(|flags| self.tcp.remove(&labels, *flags));
        }
    }
}

/// The series of one destination, found once for each key and kept: a look-up by 25 labels is dearer than all else that
/// is done to count a request. Belongs to one worker.
#[derive(Debug)]
pub(crate) struct SeriesCache {
    destinations: Arc<Destinations>,
    labels: Arc<Labels>,
    requests: RefCell<Vec<(Key, Series)>>,
    messages: OnceCell<Rc<MessageSeries>>,
    tcp: RefCell<Vec<(Flags, Rc<TcpSeries>)>>,
}

impl SeriesCache {
    pub(crate) fn new(destinations: &Arc<Destinations>, labels: Labels) -> Self {
        Self {
            labels: destinations.enter(labels),
            destinations: Arc::clone(destinations),
            requests: RefCell::default(),
            messages: OnceCell::new(),
            tcp: RefCell::default(),
        }
    }

    /// Counts one request.
    pub(crate) fn observe(&self, key: Key, observed: &Observed) {
        let mut kept = self.requests.borrow_mut();
        if let Some((_, series)) = kept.iter().find(|(own, _)| *own == key) {
            series.observe(observed);
            return;
        }
        let (counted, series) = self.destinations.requests(&self.labels, key);
        series.observe(observed);
        if !kept.iter().any(|(own, _)| *own == counted) {
            kept.push((counted, series));
        }
    }

    /// The series of messages of calls to the destination.
    pub(crate) fn messages(&self) -> &Rc<MessageSeries> {
        let series = || Rc::new(self.destinations.messages(&self.labels));
        self.messages.get_or_init(series)
    }

    /// The series of connections that have these flags when it is known where they go. Who counts in them holds what this
    /// cache belongs to, so that they stay.
    pub(crate) fn tcp(&self, flags: Flags) -> Rc<TcpSeries> {
        let mut kept = self.tcp.borrow_mut();
        if let Some((_, series)) = kept.iter().find(|(own, _)| *own == flags) {
            return Rc::clone(series);
        }
        let series = Rc::new(self.destinations.tcp(&self.labels, flags));
        kept.push((flags, Rc::clone(&series)));
        series
    }
}

impl Drop for SeriesCache {
    fn drop(&mut self) {
        self.destinations.leave(&self.labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use edge_model::Cluster;
    use prometheus::{Encoder, Registry, TextEncoder};
    use std::time::Duration;

    struct Lab {
        registry: Registry,
        metrics: Metrics,
    }

    impl Lab {
        fn new() -> Self {
            let registry = Registry::new();
            let metrics = Metrics::new(&registry).unwrap();
            Self { registry, metrics }
        }

        fn enter(&self, service: usize) -> SeriesCache {
            let cluster = Cluster::new(&format!("s{service}.shop.svc.cluster.local"), "shop", 80, None);
            SeriesCache::new(self.metrics.destinations(), Labels::new(&cluster, None))
        }

        /// How many samples of a name there are, and what they come to.
        fn sum(&self, name: &str) -> (usize, u64) {
            let mut text = Vec::new();
            TextEncoder::new()
                .encode(&self.registry.gather(), &mut text)
                .unwrap();
            let text = String::from_utf8(text).unwrap();
            let is_meant = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
            let samples = text.lines().filter(is_meant);
            let samples: Vec<u64> = samples
                .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
                .collect();
            (samples.len(), samples.iter().sum())
        }
    }

    fn count(cache: &SeriesCache, code: u16) {
        let observed = Observed {
            took: Duration::from_millis(1),
            received: 0,
            sent: 0,
        };
        cache.observe((code, Flags::NONE, Kind::Http), &observed);
    }

    const REQUESTS: &str = "istio_requests_total";
    const DURATIONS: &str = "istio_request_duration_milliseconds_count";

    #[test]
    fn a_destination_has_so_many_series_and_one_for_the_rest_whoever_counts() {
        let lab = Lab::new();
        let workers = [lab.enter(0), lab.enter(0)];
        for code in 200..700 {
            workers.iter().for_each(|worker| count(worker, code));
        }
        for name in [REQUESTS, DURATIONS] {
            assert_eq!(lab.sum(name), (MOST + 1, 1000), "{name}");
        }
        assert_eq!(workers[0].requests.borrow().len(), MOST + 1);
    }

    #[test]
    fn of_those_that_are_gone_the_last_ones_stay_and_count_on() {
        let lab = Lab::new();
        let stays = lab.enter(0);
        count(&stays, 200);
        for service in 1..3 * MOST_GONE {
            let (one, other) = (lab.enter(service), lab.enter(service));
            count(&one, 200);
            drop(one);
            count(&other, 200);
        }
        for name in [REQUESTS, DURATIONS] {
            assert_eq!(lab.sum(name).0, MOST_GONE + 1, "{name}");
        }
        let before = lab.sum(REQUESTS);
        let back = lab.enter(3 * MOST_GONE - 1);
        count(&back, 200);
        assert_eq!(
            lab.sum(REQUESTS),
            (before.0, before.1 + 1),
            "in the series of before"
        );
        // It no longer counts among the gone, and neither does who was there all the time.
        (1..=MOST_GONE).for_each(|service| count(&lab.enter(service), 200));
        assert_eq!(lab.sum(REQUESTS).0, MOST_GONE + 2);
        count(&stays, 200);
        let known = lab.metrics.destinations().lock();
        assert_eq!(
            (known.destinations.gone(), known.gone_series),
            (MOST_GONE, MOST_GONE)
        );
        assert_eq!(known.destinations.len(), MOST_GONE + 2);
    }

    #[test]
    fn connections_and_messages_count_as_requests_do() {
        let lab = Lab::new();
        for service in 0..2 * MOST_GONE {
            let cache = lab.enter(service);
            cache.tcp(Flags::NONE).opened.inc();
            cache.messages().requests.inc();
        }
        for name in [
            "istio_tcp_connections_opened_total",
            "istio_tcp_sent_bytes_total",
            "istio_request_messages_total",
            "istio_response_messages_total",
        ] {
            assert_eq!(lab.sum(name).0, MOST_GONE / 2, "{name}");
        }
    }

    #[test]
    fn who_never_counted_leaves_nothing_behind() {
        let lab = Lab::new();
        (0..10).for_each(|service| drop(lab.enter(service)));
        let known = lab.metrics.destinations().lock();
        assert_eq!((known.destinations.len(), known.destinations.gone()), (0, 0));
    }
}
