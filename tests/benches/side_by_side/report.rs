//! The figures, and how they are shown.

use serde::{Deserialize, Serialize};

use crate::work::Work;

/// Nanoseconds a message, in one round.
pub(crate) type Sample = f64;

/// The figures of one implementation of one work.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) work: String,
    /// Bytes of payload.
    pub(crate) payload: usize,
    /// How many messages are flushed, or are in the buffer, at once.
    pub(crate) batch: usize,
    #[serde(rename = "impl")]
    pub(crate) implementation: String,
    /// The median.
    pub(crate) ns_per_message: f64,
    pub(crate) ns_quartiles: [f64; 2],
    pub(crate) ns_range: [f64; 2],
    pub(crate) messages_per_second: f64,
    /// The median of the ratios of all rounds.
    pub(crate) ratio_to_floor: f64,
    pub(crate) ratio_quartiles: [f64; 2],
    /// The ratio of the least, which other work on the machine disturbs little.
    pub(crate) ratio_of_least: f64,
    pub(crate) rounds: usize,
    pub(crate) machine: String,
}

impl Row {
    pub(crate) fn new(
        work: Work,
        implementation: &str,
        samples: Vec<Sample>,
        floor: &[Sample],
        machine: &str,
    ) -> Self {
        let ratios = samples.iter().zip(floor).map(|(sample, floor)| sample / floor).collect();
        let [least, below, median, above, most] = five_numbers(samples);
        let [_, ratio_below, ratio, ratio_above, _] = five_numbers(ratios);
        let [least_floor, ..] = five_numbers(floor.to_vec());
        Self {
            work: work.name().to_owned(),
            payload: work.payload,
            batch: work.batch,
            implementation: implementation.to_owned(),
            ns_per_message: median,
            ns_quartiles: [below, above],
            ns_range: [least, most],
            messages_per_second: 1e9 / median,
            ratio_to_floor: ratio,
            ratio_quartiles: [ratio_below, ratio_above],
            ratio_of_least: least / least_floor,
            rounds: floor.len(),
            machine: machine.to_owned(),
        }
    }

    /// Prints a line of the table.
    pub(crate) fn print(&self) {
        let [least, _] = self.ns_range.map(short);
        let [below, above] = self.ns_quartiles.map(short);
        let [ratio_below, ratio_above] = self.ratio_quartiles;
        let ratio_quartiles = format!("{ratio_below:.2} to {ratio_above:.2}");
        println!(
            "  {:<12} {:>9}  {:>22} {:>9}  {:>10} {:>10}  {:>6.2} {ratio_quartiles:>13} {:>7.2}",
            self.implementation,
            short(self.ns_per_message),
            below + " to " + &above,
            least,
            scaled(self.messages_per_second, ""),
            scaled(self.messages_per_second * self.payload as f64, "B"),
            self.ratio_to_floor,
            self.ratio_of_least,
        );
    }
}

pub(crate) fn print_title(work: Work) {
    println!(
        "\n{work}\n  {:<12} {:>9}  {:>22} {:>9}  {:>10} {:>10}  {:>6} {:>13} {:>7}",
        "", "ns", "quartiles", "least", "messages/s", "payload/s", "ratio", "quartiles", "least",
    );
}

pub(crate) fn print_missing(implementation: &str) {
    println!("  {implementation:<12} not installed");
}

/// The least, the quartiles with the median, and the most.
fn five_numbers(mut values: Vec<f64>) -> [f64; 5] {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    [0, 1, 2, 3, 4].map(|quarter| values[last * quarter / 4])
}

fn short(value: f64) -> String {
    let decimals = match value {
        0.0..100.0 => 2,
        100.0..1000.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

fn scaled(value: f64, unit: &str) -> String {
    let (divisor, prefix) = match value {
        1e9.. => (1e9, "G"),
        1e6.. => (1e6, "M"),
        1e3.. => (1e3, "k"),
        _ => (1.0, ""),
    };
    format!("{:.1} {prefix}{unit}", value / divisor)
}
