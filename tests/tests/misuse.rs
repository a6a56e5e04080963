//! Declarations that `protocol!` must not take, and what the compiler says of them.
//!
//! Only a sentence of each message is compared, as the rest is the compiler's and changes with it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use escargot::format::Message;

macro_rules! misuses {
    ($($misuse:ident { $declaration:literal } $sentence:literal)*) => {$(
        #[test]
        fn $misuse() {
            let errors = compile($declaration).expect_err("it compiles");
            assert!(errors.contains($sentence), "{errors}");
        }
    )*};
}

#[test]
fn what_is_right_compiles() {
    compile(
        "imsg_wire::protocol! {
            pub enum Told<'a, F> {
                /// Attributes, too.
                1 => Name { name: &'a str as Counted<u16>, rest: &'a [u8] },
                TWO = 2 => One(u32) + F,
                3 => Stop,
            }
        }",
    )
    .unwrap();
}

misuses! {
    two_messages_cannot_have_one_number {
        "imsg_wire::protocol! { enum Told { 1 => Start, 2 => Go, 1 => Stop } }"
    }
    "discriminant value `1` assigned more than once"

    two_messages_cannot_have_one_number_by_a_constant {
        "const START: u32 = 7; imsg_wire::protocol! { enum Told { START => Start, 7 => Stop } }"
    }
    "discriminant value `7` assigned more than once"

    two_messages_cannot_have_one_name {
        "imsg_wire::protocol! { enum Told { 1 => Start, 2 => Start } }"
    }
    "the name `Start` is defined multiple times"

    text_without_an_end_cannot_be_followed_by_a_field {
        "imsg_wire::protocol! { enum Told<'a> { 1 => Entry { name: &'a str, value: &'a [u8] } } }"
    }
    "field `name` of message `Entry` takes all that is left of the payload, so it has to be the \
     last one, or say where it ends: `as Counted<u16>`"

    bytes_without_an_end_cannot_be_followed_by_a_field {
        "imsg_wire::protocol! { enum Told<'a> { 1 => Entry { value: &'a [u8], id: u32 } } }"
    }
    "field `value` of message `Entry` takes all that is left of the payload"

    a_reference_needs_a_lifetime {
        "imsg_wire::protocol! { enum Told { 1 => Name { name: &str } } }"
    }
    "missing lifetime specifier"

    a_lifetime_has_to_be_declared {
        "imsg_wire::protocol! { enum Told { 1 => Name { name: &'a str } } }"
    }
    "use of undeclared lifetime name `'a`"

    a_lifetime_has_to_be_used {
        "imsg_wire::protocol! { enum Told<'a> { 1 => Number(u32) } }"
    }
    "lifetime parameter `'a` is never used"

    a_type_that_is_not_in_one_piece_needs_an_encoding {
        "imsg_wire::protocol! { enum Told { 1 => Name { name: String } } }"
    }
    "String` cannot be encoded as `Plain<Value>`"

    padding_has_to_be_named {
        "#[derive(zerocopy::FromBytes, zerocopy::Immutable)] #[repr(C)]
        pub struct Padded { a: u8, b: u32 }
        imsg_wire::protocol! { pub enum Told { 1 => Sent(Padded) } }"
    }
    "a field of type `Padded` cannot be encoded as `Plain<Value>`"

    what_is_borrowed_needs_no_alignment {
        "imsg_wire::protocol! { enum Told<'a> { 1 => Number(&'a u32) } }"
    }
    "a field of type `&'a u32` cannot be encoded as `Plain<_>`"

    an_encoding_is_for_certain_types {
        "imsg_wire::protocol! { enum Told { 1 => Number(u32 as Terminated) } }"
    }
    "a field of type `u32` cannot be encoded as `Terminated`"

    an_encoding_has_to_exist {
        "imsg_wire::protocol! { enum Told<'a> { 1 => Name(&'a str as Quoted) } }"
    }
    "cannot find type `Quoted` in this scope"

    a_count_is_a_number {
        "imsg_wire::protocol! { enum Told<'a> { 1 => Name(&'a str as Counted<f32>) } }"
    }
    "is not implemented for `f32`"

    a_message_needs_a_number {
        "imsg_wire::protocol! { enum Told { 1 => Start, Stop {} } }"
    }
    "a message is `NUMBER => Name`, `NUMBER => Name { field: Type, .. }` or `NUMBER => Name(Type)`"

    a_message_with_several_fields_names_them {
        "imsg_wire::protocol! { enum Told { 1 => Size(u32, u32) } }"
    }
    "this is not: 1 => Size"

    a_comma_is_between_messages {
        "imsg_wire::protocol! { enum Told { 1 => Start 2 => Stop } }"
    }
    "and a comma behind it; this is not: 1 => Start 2 => Stop"

    a_number_is_not_negative {
        "imsg_wire::protocol! { enum Told { -1 => Start } }"
    }
    "cannot apply unary operator `-` to type `u32`"

    a_number_has_32_bits {
        "imsg_wire::protocol! { enum Told { 0x1_0000_0000 => Start } }"
    }
    "literal out of range for `u32`"

    a_constant_is_of_the_type_of_a_number {
        "const START: u8 = 1; imsg_wire::protocol! { enum Told { START => Start } }"
    }
    "expected `u32`, found `u8`"

    a_protocol_has_a_message {
        "imsg_wire::protocol! { enum Told {} }"
    }
    "a protocol needs a message: `NUMBER => Name`"

    a_protocol_is_an_enum {
        "imsg_wire::protocol! { struct Told { number: u32 } }"
    }
    "`protocol!` takes one enum, with at most a lifetime and, behind that, a type parameter"

    a_protocol_has_one_lifetime {
        "imsg_wire::protocol! { enum Told<'a, 'b> { 1 => Name(&'a str) } }"
    }
    "`protocol!` takes one enum, with at most a lifetime and, behind that, a type parameter"

    a_descriptor_has_a_type {
        "imsg_wire::protocol! { enum Told { 1 => Start + descriptor } }"
    }
    "cannot find type `descriptor` in this scope"

    a_field_is_not_called_as_the_descriptor_is {
        "imsg_wire::protocol! { enum Told { 1 => Start { descriptor: u32 } + u8 } }"
    }
    "field `descriptor` is already declared"

    a_descriptor_goes_to_a_queue_of_its_type {
        "imsg_wire::protocol! { pub enum Told { 1 => Start + u8 } }
        pub fn send(queue: &mut impl imsg_wire::Compose<Descriptor = String>) {
            let _ = Told::Start { descriptor: 7 }.compose(queue, 0);
        }"
    }
    "expected `u8`, found `String`"
}

/// Compiles a declaration; what the compiler says if it does not.
fn compile(declaration: &str) -> Result<(), String> {
    static LIBRARIES: LazyLock<Vec<PathBuf>> = LazyLock::new(libraries);
    let mut command = Command::new("rustc");
    command.args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata", "--out-dir"]);
    // Not /dev/null: the compiler puts its output in the place of what it is told, and root may.
    let output = tempfile::tempdir().unwrap();
    command.arg(output.path());
    for library in &*LIBRARIES {
        let name = library.file_stem().unwrap().to_str().unwrap().trim_start_matches("lib");
        let name = name.split('-').next().unwrap();
        command.arg("--extern").arg(format!("{name}={}", library.display()));
        command.arg("-L").arg(library.parent().unwrap());
    }
    command.arg("-").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut compiler = command.spawn().unwrap();
    let source = format!(
        "#![allow(dead_code, unused_imports)]
        use imsg_wire::typed::{{Counted, Protocol, Terminated}};
        {declaration}"
    );
    compiler.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
    let output = compiler.wait_with_output().unwrap();
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Builds imsg-wire and zerocopy, and tells where they are.
fn libraries() -> Vec<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let build = escargot::CargoBuild::new()
        .manifest_path(root.join("imsg-wire/Cargo.toml"))
        .target_dir(target)
        .exec()
        .expect("it builds");
    let mut libraries = Vec::new();
    for message in build {
        let message = message.unwrap();
        if let Ok(Message::CompilerArtifact(artifact)) = message.decode()
            && matches!(&*artifact.target.name, "imsg_wire" | "imsg-wire" | "zerocopy")
        {
            let files = artifact.filenames.iter().map(|file| file.to_path_buf());
            libraries.extend(files.filter(|file| file.extension().is_some_and(|it| it == "rlib")));
        }
    }
    libraries
}
