//! Requests that wait for keys: bounded in number and in time.

use std::collections::VecDeque;

use crate::keystore::IssuerId;
use crate::limits::{PARKED_FOR, PARKED_REQUESTS};
use crate::time::UnixTime;

/// Waiting requests, named by `T`, in the order in which they came.
#[derive(Debug)]
pub struct Parking<T> {
    waiting: VecDeque<Parked<T>>,
}

/// One waiting request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked<T> {
    /// The request.
    pub request: T,
    /// Whose keys it waits for.
    pub issuer: IssuerId,
    deadline: UnixTime,
}

impl<T> Parked<T> {
    /// A request that begins to wait at `now`.
    pub fn new(request: T, issuer: IssuerId, now: UnixTime) -> Self {
        Self { request, issuer, deadline: now.after(PARKED_FOR) }
    }

    /// The same request, which goes on waiting for other keys, and not any longer than before.
    #[must_use]
    pub fn waiting_for(self, issuer: IssuerId) -> Self {
        Self { issuer, ..self }
    }
}

impl<T> Default for Parking<T> {
    /// Nobody waits.
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<T: PartialEq> Parking<T> {
    /// Lets a request wait. False if [`PARKED_REQUESTS`] wait already.
    #[must_use]
    pub fn park(&mut self, parked: Parked<T>) -> bool {
        let has_room = self.waiting.len() < PARKED_REQUESTS;
        if has_room {
            self.waiting.push_back(parked);
        }
        has_room
    }

    /// Forgets a request that is gone.
    pub fn remove(&mut self, request: &T) {
        self.waiting.retain(|parked| parked.request != *request);
    }

    /// Takes out the requests that wait for `issuer`: its fetch has ended.
    pub fn take_ready(&mut self, issuer: IssuerId) -> Vec<Parked<T>> {
        self.take(|parked| parked.issuer == issuer)
    }

    /// Takes out the requests that have waited for [`PARKED_FOR`].
    pub fn take_overdue(&mut self, now: UnixTime) -> Vec<Parked<T>> {
        self.take(|parked| parked.deadline <= now)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn take(&mut self, leaves: impl Fn(&Parked<T>) -> bool) -> Vec<Parked<T>> {
        let (left, stays): (VecDeque<_>, VecDeque<_>) = self.waiting.drain(..).partition(leaves);
        self.waiting = stays;
        left.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_in_number_and_in_time() {
        let (start, issuer) = (UnixTime::from_secs(1000), IssuerId(0));
        let mut parking = Parking::default();
        let requests = |parked: Vec<Parked<usize>>| parked.into_iter().map(|p| p.request).collect::<Vec<_>>();
        for request in 0..PARKED_REQUESTS {
            assert!(parking.park(Parked::new(request, issuer, start)));
        }
        let late = Parked::new(9999, IssuerId(1), start.after(PARKED_FOR));
        assert!(!parking.park(late));
        parking.remove(&0);
        assert!(parking.park(late));
        assert_eq!(requests(parking.take_overdue(start)), Vec::<usize>::new());
        let overdue = parking.take_overdue(start.after(PARKED_FOR));
        assert_eq!(requests(overdue), (1..PARKED_REQUESTS).collect::<Vec<_>>());
        assert_eq!(requests(parking.take_ready(issuer)), Vec::<usize>::new());
        assert_eq!(requests(parking.take_ready(IssuerId(1))), [9999]);
        assert!(parking.is_empty());
    }

    #[test]
    fn waiting_for_other_keys_wins_no_time() {
        let start = UnixTime::from_secs(1000);
        let mut parking = Parking::default();
        assert!(parking.park(Parked::new(1, IssuerId(0), start).waiting_for(IssuerId(1))));
        assert_eq!(parking.take_ready(IssuerId(0)), []);
        assert_eq!(parking.take_overdue(start.after(PARKED_FOR)).len(), 1);
    }
}
