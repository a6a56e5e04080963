//! Decodes a captured stream of messages, of any length, in constant memory: `stream` finds the
//! messages, and tells the dialects apart; `strace` finds streams in a log of system calls.

mod strace;
mod stream;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, ValueEnum};
use imsg_os::{Any, DEFAULT_MAX_LEN, Endian};

use self::stream::{Framing, Stream};
use crate::complain::complain;
use crate::print::{Entry, Format, Printing, print};
use crate::stdio::{self, Stdio};
use crate::{Program, dialect};

/// Decodes a captured stream of imsg messages, of any length, in constant memory.
///
/// Each message becomes a line: where it starts, its dialect, type, id and pid, the bytes of its
/// payload, and "fd" if it is marked as carrying a descriptor.
///
/// The dialects differ in how they mark a descriptor, and in big-endian order. "auto" finds out
/// which it is, and says of each message what its header tells: "classic", "modern", or "either".
/// It refuses a stream whose headers contradict each other.
///
/// With --strace, the file is a log of system calls, and each message that one of its processes sent
/// or received on a local socket becomes a line: the line of the log, the process, its descriptor,
/// "in" or "out", and what a descriptor that was passed is. It has to be made by
///
///   strace -f -yy -xx -s 131072 -o FILE \
///     -e trace=%network,read,write,readv,writev,close,dup,dup2,dup3,pipe,fork,clone COMMAND
///
/// or with "-p PROCESS" in place of COMMAND. Of a stream that began before the log, the first message
/// is looked for, and it is said how many bytes were skipped. Other streams are passed over.
/// sendmmsg and recvmmsg, which no library of imsg calls, are not read.
///
/// Exit status: 0 if the whole stream was decoded or nobody reads the output any more, 1 if the
/// stream is broken, which is said with the offset and the reason after all messages before that,
/// 2 if the arguments make no sense.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// The dialect of the stream
    #[arg(long, value_enum, default_value_t = Dialect::Auto)]
    dialect: Dialect,

    /// The byte order of the machine that wrote it
    #[arg(long, value_enum, default_value_t = ByteOrder::Native)]
    byte_order: ByteOrder,

    /// The largest message to accept, in bytes, header included; with "auto" at most 65535, as
    /// longer ones of one dialect look like those of the other
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_LEN as u32,
        value_parser = clap::value_parser!(u32).range(16..=0x7fff_ffff))]
    max_len: u32,

    /// FILE is a log of strace
    #[arg(long, conflicts_with_all = ["byte_order", "max_len"])]
    strace: bool,

    #[command(flatten)]
    printing: Printing,

    /// The stream; standard input if there is none, or with "-"
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Dialect {
    Auto,
    Classic,
    Modern,
}

#[derive(Clone, Copy, ValueEnum)]
enum ByteOrder {
    Native,
    Little,
    Big,
}

pub(crate) fn main(arguments: &Arguments) -> ExitCode {
    let framing = framing(arguments);
    let failure = match run(arguments, framing) {
        Ok(()) => return ExitCode::SUCCESS,
        // Whoever read it has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        Err(Failure::Output(error)) => format!("cannot print: {error}"),
        Err(Failure::Names(reason)) => reason,
        Err(Failure::Stream(name, error)) => format!("{name}: {error}"),
        // Which was said.
        Err(Failure::Log(_, strace::Failure::Broken)) => return ExitCode::FAILURE,
        Err(Failure::Log(name, strace::Failure::Nothing)) => {
            format!("{name}: there is no stream of messages in it, or it was not made with -yy -xx")
        }
        Err(Failure::Log(name, strace::Failure::Input(error) | strace::Failure::Output(error))) => {
            format!("{name}: {error}")
        }
    };
    complain("dump", failure);
    ExitCode::FAILURE
}

/// How the headers are to be read. Ends the program if the arguments leave that open.
fn framing(arguments: &Arguments) -> Framing {
    let order = match arguments.byte_order {
        ByteOrder::Native => Endian::NATIVE,
        ByteOrder::Little => Endian::Little,
        ByteOrder::Big => Endian::Big,
    };
    match arguments.dialect {
        Dialect::Classic => Framing::Given(Any::Classic(order)),
        Dialect::Modern => Framing::Given(Any::Modern(order)),
        Dialect::Auto => match u16::try_from(arguments.max_len) {
            Ok(max_len) => Framing::Detect { order, max_len },
            Err(_) => {
                let reason = "a maximum above 65535 needs an explicit --dialect";
                Program::command().error(ErrorKind::ValueValidation, reason).exit()
            }
        },
    }
}

/// Why not all was decoded and printed.
enum Failure {
    Names(String),
    Stream(String, stream::Error),
    Log(String, strace::Failure),
    Output(io::Error),
}

fn run(arguments: &Arguments, framing: Framing) -> Result<(), Failure> {
    let format = arguments.printing.format().map_err(Failure::Names)?;

    let file = arguments.file.as_deref().filter(|path| *path != Path::new("-"));
    let name = file.map_or("standard input".into(), |path| path.display().to_string());
    let in_stream = |error| Failure::Stream(name.clone(), error);
    let input: Box<dyn Read> = match file {
        Some(path) => Box::new(File::open(path).map_err(|error| in_stream(error.into()))?),
        None => Box::new(Stdio(io::stdin())),
    };

    let mut out = BufWriter::with_capacity(64 * 1024, stdio::output());
    if arguments.strace {
        let dialect = match framing {
            Framing::Given(dialect) => Some(dialect),
            Framing::Detect { .. } => None,
        };
        let result = strace::dump(BufReader::new(input), dialect, &format, &mut out);
        let result = result.map_err(|failure| match failure {
            strace::Failure::Output(error) => Failure::Output(error),
            failure => Failure::Log(name, failure),
        });
        return out.flush().map_err(Failure::Output).and(result);
    }
    let mut stream = Stream::new(input, framing, arguments.max_len as usize);
    let result = dump(&mut stream, &format, &mut out, in_stream);
    // What came before an error is printed before it.
    out.flush().map_err(Failure::Output).and(result)
}

fn dump(
    stream: &mut Stream<impl Read>,
    format: &Format,
    out: &mut impl Write,
    in_stream: impl Fn(stream::Error) -> Failure,
) -> Result<(), Failure> {
    loop {
        while let Some(found) = stream.next_entry().map_err(&in_stream)? {
            let stream::Entry { offset, told, frame, payload } = found;
            let printed = print(
                out,
                format,
                &Entry {
                    place: format_args!("{offset:>10}"),
                    keys: format_args!(r#""offset":{offset}"#),
                    dialect: dialect::name(told),
                    frame,
                    payload,
                    target: None,
                },
            );
            printed.map_err(Failure::Output)?;
        }
        // The next read may take as long as the program takes that writes the stream.
        out.flush().map_err(Failure::Output)?;
        if !stream.read().map_err(&in_stream)? {
            return stream.expect_end().map_err(in_stream);
        }
    }
}
