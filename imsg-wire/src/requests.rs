//! Requests that wait for their replies.

use core::{array, fmt};

/// Up to `N` requests that were sent and not answered yet, each with what the program keeps about
/// it.
///
/// [`insert`](Requests::insert) gives the [id](crate::Header::id) for the header of the request. The
/// peer sends it back in that of the reply, for which [`take`](Requests::take) has what was kept.
/// An id is not given again while its request waits, and afterwards as late as possible: the place
/// that was left last is used again last, and has a new id each time. So the reply to a request
/// that was given up does not meet another one before some 2³² / `N` more had the same place.
///
/// It never gives the id 0, which often stands for none. `N` is from 1 to 2³² − 1. Each call takes
/// the same time, however many requests wait, but those that return an iterator.
///
/// ```
/// use imsg_wire::Requests;
///
/// let mut requests = Requests::<&str, 2>::new();
/// let a = requests.insert("a").unwrap();
/// let b = requests.insert("b").unwrap();
/// assert_eq!(requests.insert("c"), Err("c"), "two is all that it holds");
///
/// assert_eq!(requests.take(b), Some("b"));
/// assert_eq!(requests.take(b), None, "a peer that answers twice");
///
/// // Those that waited too long, and what a peer that died left unanswered.
/// assert!(requests.expire(|_, request| *request == "a").eq([(a, "a")]));
/// assert_eq!(requests.drain().count(), 0);
/// ```
pub struct Requests<T, const N: usize> {
    places: [Place<T>; N],
    len: usize,
    /// The free places make a list, in the order in which they were left. These are its ends; they
    /// have no meaning when none is free.
    first: usize,
    last: usize,
}

/// Where a request can be.
struct Place<T> {
    /// The id of the request that is here, or of the next one: the number of the place and 1, and a
    /// multiple of `N`.
    id: u32,
    request: Option<T>,
    /// The free place that was left after this one, if this is free and not the last.
    next: usize,
}

impl<T, const N: usize> Requests<T, N> {
    const PLACES: u32 = {
        assert!(N > 0 && N as u64 <= u32::MAX as u64, "a table holds 1 to 2³² - 1 requests");
        N as u32
    };

    /// A table without requests. The first ids are 1 to `N`.
    #[must_use]
    pub fn new() -> Self {
        let place = |n: usize| {
            let next = n.saturating_add(1);
            Place { id: next as u32, request: None, next }
        };
        Self { places: array::from_fn(place), len: 0, first: 0, last: N.saturating_sub(1) }
    }

    /// Adds a request that is to be sent, and gives its id.
    ///
    /// # Errors
    ///
    /// The request, when `N` others wait.
    pub fn insert(&mut self, request: T) -> Result<u32, T> {
        if self.len >= N {
            return Err(request);
        }
        let Some(place) = self.places.get_mut(self.first) else {
            return Err(request);
        };
        place.request = Some(request);
        self.first = place.next;
        self.len = self.len.saturating_add(1);
        Ok(place.id)
    }

    /// Takes out the request of this id: its reply has come, or it could not be sent, or nobody
    /// waits for the reply any more.
    ///
    /// `None` when none of this id waits. What that says of the peer is the program's to judge: it
    /// may be late with its reply, or broken.
    pub fn take(&mut self, id: u32) -> Option<T> {
        self.take_from(Self::place_of(id), |place| place.id == id).map(|(_, request)| request)
    }

    /// The request of this id, which goes on waiting.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&T> {
        let place = self.places.get(Self::place_of(id)).filter(|place| place.id == id)?;
        place.request.as_ref()
    }

    /// The same, to be changed.
    #[must_use]
    pub fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        let place = self.places.get_mut(Self::place_of(id)).filter(|place| place.id == id)?;
        place.request.as_mut()
    }

    /// Takes out the requests that are `expired`, with their ids, in no particular order: those
    /// that the iterator has come to, so go over it to the end.
    ///
    /// ```
    /// # use imsg_wire::Requests;
    /// struct Request {
    ///     deadline: u64,
    /// }
    ///
    /// let mut requests = Requests::<Request, 16>::new();
    /// # for deadline in [40, 20, 60] { let _ = requests.insert(Request { deadline }); }
    /// let now = 50;
    /// for (id, _request) in requests.expire(|_, request| request.deadline <= now) {
    ///     println!("request {id} was not answered in time");
    /// }
    /// // Until then there is nothing to do.
    /// assert_eq!(requests.iter().map(|(_, request)| request.deadline).min(), Some(60));
    /// ```
    pub fn expire(
        &mut self,
        mut expired: impl FnMut(u32, &T) -> bool,
    ) -> impl Iterator<Item = (u32, T)> {
        (0..N).filter_map(move |n| {
            self.take_from(n, |place| {
                place.request.as_ref().is_some_and(|request| expired(place.id, request))
            })
        })
    }

    /// Takes out all requests, as when the peer has died; as [`expire`](Requests::expire) does.
    pub fn drain(&mut self) -> impl Iterator<Item = (u32, T)> {
        self.expire(|_, _| true)
    }

    /// The requests that wait, with their ids, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.places.iter().filter_map(|place| Some((place.id, place.request.as_ref()?)))
    }

    /// How many requests wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no request waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the request of this id is, if it waits.
    fn place_of(id: u32) -> usize {
        (id.wrapping_sub(1) % Self::PLACES) as usize
    }

    /// Takes out the request in place `n` if it is the right one.
    fn take_from(&mut self, n: usize, is_it: impl FnOnce(&Place<T>) -> bool) -> Option<(u32, T)> {
        let place = self.places.get_mut(n).filter(|place| is_it(place))?;
        let request = place.request.take()?;
        let id = place.id;
        // A new round of ids begins with that of the first.
        place.id = id.checked_add(Self::PLACES).unwrap_or((n as u32).wrapping_add(1));
        if self.len >= N {
            self.first = n;
        } else if let Some(last) = self.places.get_mut(self.last) {
            last.next = n;
        }
        self.last = n;
        self.len = self.len.saturating_sub(1);
        Some((id, request))
    }
}

impl<T, const N: usize> Default for Requests<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows the ids of the requests, not what is kept about them.
impl<T, const N: usize> fmt::Debug for Requests<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|(id, _)| id)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::Requests;

    #[test]
    fn when_the_ids_of_a_place_are_used_up_its_first_one_comes_again_and_none_is_zero() {
        let mut requests = Requests::<(), 2>::new();
        // The next ones are the last of their round.
        requests.places[0].id = u32::MAX;
        requests.places[1].id = u32::MAX - 1;

        let mut ids = [0; 6];
        for id in &mut ids {
            *id = requests.insert(()).unwrap();
            requests.take(*id).unwrap();
        }

        assert_eq!(ids, [u32::MAX, u32::MAX - 1, 1, 2, 3, 4]);
    }
}
