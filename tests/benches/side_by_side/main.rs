//! Measures this library beside others that do the same, and beside the least that the same bytes
//! can cost.
//!
//! All implementations of a work take turns, a short one each, so that a machine whose speed
//! changes treats them alike; a ratio is the median of those of the rounds.

mod c;
mod chart;
#[cfg(target_os = "linux")]
mod clients;
mod floor;
mod ipc;
mod machine;
mod memory;
mod ours;
mod pair;
mod report;
mod work;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use imsg_os::{Classic, Modern};

use crate::c::Libraries;
use crate::machine::Core;
use crate::report::{Row, Sample};
use crate::work::Work;

/// Measures imsg beside plain system calls, ipc-channel and the C library. The names of files are
/// relative to the root of this repository.
#[derive(Parser)]
#[command(name = "side_by_side")]
struct Options {
    /// Only the works whose name contains this, such as "stream, 64 B"
    filter: Option<String>,
    /// Takes less than a minute, with figures that spread more
    #[arg(long)]
    quick: bool,
    /// Where to write the figures to
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where to draw a chart
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Takes the figures from this file, and measures nothing
    #[arg(long, value_name = "JSON")]
    from: Option<PathBuf>,
    /// Is an echo server for clients of this socket
    #[cfg(target_os = "linux")]
    #[arg(long, value_name = "PATH", hide = true)]
    serve: Option<PathBuf>,
    /// What that waits by
    #[cfg(target_os = "linux")]
    #[arg(long, value_enum, default_value_t, hide = true)]
    serve_by: clients::By,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// Takes so many turns, and says how long that took.
type Sampler = Box<dyn FnMut(usize) -> Duration>;

fn main() {
    let options = Options::parse();
    #[cfg(target_os = "linux")]
    if let Some(path) = &options.serve {
        return clients::serve(path, options.serve_by).expect("a socket to listen on");
    }
    // It is known before the measurement whether they can be written.
    let create = |name: &PathBuf| File::create(from_root(name)).expect("a file to write to");
    let json = options.json.as_ref().map(create);
    let svg = options.svg.as_ref().map(create);
    let rows = match &options.from {
        Some(file) => {
            let text = fs::read_to_string(from_root(file)).expect("a file of figures");
            serde_json::from_str(&text).expect("the figures of a run")
        }
        None => measure_all(&options),
    };
    if let Some(mut file) = json {
        let text = serde_json::to_string_pretty(&rows).expect("figures");
        writeln!(file, "{text}").expect("a file to write to");
    }
    if let Some(mut file) = svg {
        file.write_all(chart::draw(&rows).as_bytes()).expect("a file to write to");
    }
}

/// A name given on the command line: cargo runs this in the folder of the package.
fn from_root(name: &Path) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn measure_all(options: &Options) -> Vec<Row> {
    let wanted =
        |name: &str| options.filter.as_ref().is_none_or(|filter| name.contains(&filter[..]));
    let machine = machine::describe();
    println!("{machine}");
    let libraries = Libraries::load();
    machine::pin(Core::Sender);
    if wanted("memory") {
        memory::report();
    }
    let effort = Effort::new(options.quick);
    #[cfg(target_os = "linux")]
    if wanted("clients") {
        memory::allow_descriptors();
        clients::report(effort.sample);
    }
    let works: Vec<Work> =
        Work::all().into_iter().filter(|work| wanted(&work.to_string())).collect();
    assert!(
        !works.is_empty() || wanted("memory") || wanted("clients"),
        "no work has that in its name"
    );
    let mut all = Vec::new();
    for work in works {
        report::print_title(work);
        let runs = measure(work, &libraries, effort);
        let floor = runs[0].samples.clone();
        for run in runs {
            if run.sampler.is_none() {
                report::print_missing(run.name);
                continue;
            }
            let row = Row::new(work, run.name, run.samples, &floor, &machine);
            row.print();
            all.push(row);
        }
    }
    all
}

/// How long to measure.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    /// How long each implementation runs in a round.
    sample: Duration,
}

impl Effort {
    fn new(quick: bool) -> Self {
        match quick {
            true => Self { rounds: 11, sample: Duration::from_millis(5) },
            false => Self { rounds: 31, sample: Duration::from_millis(25) },
        }
    }
}

/// Measures all implementations of a work, of which the floor is the first.
fn measure(work: Work, libraries: &Libraries, effort: Effort) -> Vec<Run> {
    let mut runs: Vec<Run> = contenders(work, libraries)
        .into_iter()
        .map(|(name, sampler)| Run::new(name, sampler, effort.sample))
        .collect();
    for round in 0..effort.rounds {
        // Another one begins each time, as the one before may leave the cache in another state.
        let first = round % runs.len();
        let (end, start) = runs.split_at_mut(first);
        start.iter_mut().chain(end).for_each(|run| run.sample(work));
    }
    runs
}

/// What does this work, and the floor first; no sampler for what is not installed.
fn contenders(work: Work, libraries: &Libraries) -> Vec<(&'static str, Option<Sampler>)> {
    let mut contenders = vec![
        ("floor", Some(floor::sampler(work))),
        ("classic", ours::sampler(Classic::new(), work)),
        ("modern", ours::sampler(Modern::new(), work)),
        ("ipc-channel", ipc::sampler(work)),
    ];
    contenders.insert(1, ("floor, whole", floor::whole(work)));
    contenders.retain(|(_, sampler)| sampler.is_some());
    contenders.extend(libraries.contenders(work));
    contenders
}

/// An implementation that is being measured.
struct Run {
    name: &'static str,
    /// None when it is not installed.
    sampler: Option<Sampler>,
    /// How many turns a sample takes.
    turns: usize,
    samples: Vec<Sample>,
}

impl Run {
    fn new(name: &'static str, mut sampler: Option<Sampler>, sample: Duration) -> Self {
        let turns = sampler.as_mut().map_or(0, |sampler| turns_for(sampler, sample));
        Self { name, sampler, turns, samples: Vec::new() }
    }

    fn sample(&mut self, work: Work) {
        if let Some(sampler) = &mut self.sampler {
            let elapsed = sampler(self.turns);
            let messages = self.turns * work.messages();
            self.samples.push(elapsed.as_secs_f64() * 1e9 / messages as f64);
        }
    }
}

/// How many turns take about this long. It also warms all up.
fn turns_for(sampler: &mut Sampler, sample: Duration) -> usize {
    let mut turns = 1;
    loop {
        let elapsed = sampler(turns);
        if elapsed * 2 >= sample {
            let turns = turns as f64 * sample.as_secs_f64() / elapsed.as_secs_f64();
            return (turns as usize).max(1);
        }
        turns *= 2;
    }
}
