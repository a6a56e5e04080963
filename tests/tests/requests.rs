//! `Requests` beside a map that does the same.

use std::collections::{BTreeMap, HashSet};

use imsg_wire::Requests;
use proptest::prelude::*;

const N: usize = 5;

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(u8),
    /// Takes one that waits.
    Take(prop::sample::Index),
    /// Takes by an id that may be of none.
    Guess(u32),
    Expire(u8),
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any::<u8>().prop_map(Step::Insert),
        4 => any::<prop::sample::Index>().prop_map(Step::Take),
        2 => prop_oneof![0..60_u32, any::<u32>()].prop_map(Step::Guess),
        1 => any::<u8>().prop_map(Step::Expire),
        1 => Just(Step::Drain),
    ]
}

proptest! {
    #[test]
    fn what_was_inserted_and_not_taken_waits_under_an_id_of_its_own(
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut requests = Requests::<u8, N>::new();
        let mut model = BTreeMap::<u32, u8>::new();
        let mut given = HashSet::new();
        for step in steps {
            match step {
                Step::Insert(value) if model.len() == N => {
                    prop_assert_eq!(requests.insert(value), Err(value));
                }
                Step::Insert(value) => {
                    let id = requests.insert(value).unwrap();
                    prop_assert!(given.insert(id), "{} was given before", id);
                    model.insert(id, value);
                }
                Step::Take(index) if !model.is_empty() => {
                    let id = *model.keys().nth(index.index(model.len())).unwrap();
                    prop_assert_eq!(requests.take(id), model.remove(&id));
                }
                Step::Take(_) => {}
                Step::Guess(id) => {
                    prop_assert_eq!(requests.get(id), model.get(&id));
                    prop_assert_eq!(requests.take(id), model.remove(&id));
                }
                Step::Expire(limit) => {
                    let expired: BTreeMap<_, _> =
                        requests.expire(|_, value| *value < limit).collect();
                    let in_model = model.extract_if(.., |_, value| *value < limit).collect();
                    prop_assert_eq!(expired, in_model);
                }
                Step::Drain => {
                    let all: BTreeMap<_, _> = requests.drain().collect();
                    prop_assert_eq!(all, std::mem::take(&mut model));
                }
            }
            let waiting: BTreeMap<_, _> = requests.iter().map(|(id, value)| (id, *value)).collect();
            prop_assert_eq!(&waiting, &model);
            prop_assert_eq!((requests.len(), requests.is_empty()), (model.len(), model.is_empty()));
        }
    }
}

#[test]
fn with_one_request_at_a_time_all_places_are_used_in_turn() {
    let mut requests = Requests::<(), N>::new();

    let ids = [(); 12].map(|()| {
        let id = requests.insert(()).unwrap();
        requests.take(id).unwrap();
        id
    });

    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
}

#[test]
fn what_is_kept_is_dropped_once() {
    let kept = std::rc::Rc::new(());
    let mut requests = Requests::<_, 4>::new();
    let ids = [(); 4].map(|()| requests.insert(kept.clone()).unwrap());
    drop(requests.take(ids[1]));
    assert_eq!(std::rc::Rc::strong_count(&kept), 4);

    drop(requests);

    assert_eq!(std::rc::Rc::strong_count(&kept), 1);
}

#[test]
fn debug_shows_ids_and_nothing_that_is_kept() {
    let mut requests = Requests::<&str, 4>::new();
    requests.insert("secret").unwrap();

    assert_eq!(format!("{requests:?}"), "{1}");
}

#[test]
fn a_request_that_waits_can_be_changed() {
    let mut requests = Requests::<u64, 4>::new();
    let id = requests.insert(1).unwrap();
    *requests.get_mut(id).unwrap() += 1;
    assert_eq!(requests.get_mut(id.wrapping_add(1)), None);
    assert_eq!(requests.take(id), Some(2));
    assert_eq!(requests.get_mut(id), None);
}
