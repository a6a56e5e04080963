//! The macro.

/// Declares the messages that one side sends: their type numbers, fields and descriptors.
///
/// ```
/// use imsg_wire::typed::{Counted, Protocol};
/// use imsg_wire::{Message, Modern, RecvBuf, SendBuf};
/// # use imsg_wire::Ancillary;
///
/// imsg_wire::protocol! {
///     /// What the parent says to a worker.
///     #[derive(Debug, PartialEq)]
///     pub enum ToWorker<'a> {
///         /// Talk to this worker.
///         1 => Peer + &'static str, // in a program, OwnedFd
///         /// The entries of a new configuration follow.
///         CONF_BEGIN = 3 => ConfBegin { generation: u32 },
///         4 => ConfEntry { name: &'a str as Counted<u16>, value: &'a [u8] },
///         8 => Stop,
///     }
/// }
///
/// let mut queue: SendBuf<_, _, &str> = SendBuf::with_descriptors(Modern::new(), [0; 256]);
/// ToWorker::ConfEntry { name: "listen", value: b"*" }.compose(&mut queue, 7)?;
/// ToWorker::Peer { descriptor: "socket" }.compose(&mut queue, 8)?;
/// # let mut received: RecvBuf<_, _, &str> = RecvBuf::with_descriptors(Modern::new(), [0; 256]);
/// # received.allow_descriptors();
/// # while let Some(chunk) = queue.chunk() {
/// #     let n = chunk.bytes.len();
/// #     received.spare()?[..n].copy_from_slice(chunk.bytes);
/// #     let descriptor = chunk.descriptor.map_or(Ancillary::Nothing, |it| Ancillary::One(*it));
/// #     received.commit(n, descriptor)?;
/// #     queue.consume(n)?;
/// # }
///
/// // The other side, with a `received: RecvBuf`.
/// let message = received.next_message()?.unwrap();
/// assert_eq!(message.header.id, 7);
/// let ToWorker::ConfEntry { name, value } = message.try_into()? else { panic!() };
/// assert_eq!((name, value), ("listen", &b"*"[..]));
///
/// let message = received.next_message()?.unwrap();
/// assert_eq!(ToWorker::try_from(message)?, ToWorker::Peer { descriptor: "socket" });
///
/// assert_eq!(ToWorker::CONF_BEGIN, 3);
/// assert_eq!(ToWorker::name_of(3), Some("ConfBegin"));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
///
/// A message is `NUMBER => Name`, and then, if it has them,
///
/// - fields, `{ name: Type, name: Type as Encoding }`, or one without a name, `(Type)`. What stands
///   in the payload for a type and an encoding is on the page of [`typed`](crate::typed).
/// - a descriptor: `+ Type` where every such message has one, `+ Option<Type>` where it may. It is
///   the last field of the variant, with the name `descriptor` or, after `()`, without one.
///
/// The number is a literal, or the path of a constant of type `u32`. `CONSTANT = NUMBER => Name` also
/// makes it an associated constant of the enum, for a `match` on a type number. No number may be
/// there twice. Attributes and doc comments go where they stand.
///
/// The enum may have one lifetime, which is that of the payload, and behind that one type parameter
/// for the descriptor, `enum ToWorker<'a, F>`, where a program wants to choose that later.
///
/// It implements [`Protocol`](crate::typed::Protocol), to be composed,
/// [`Carries`](crate::typed::Carries), to get at its descriptor, and
/// `TryFrom<`[`Message`](crate::Message)`>`, which fails with
/// [`BadMessage`](crate::typed::BadMessage).
///
/// The macro takes one step a message, so more than about 100 messages need
/// `#![recursion_limit = "256"]`, as the compiler then says.
#[macro_export]
macro_rules! protocol {
    ($($declaration:tt)*) => {
        $crate::__protocol! { $($declaration)* }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __protocol {
    // Brings the generics into one form: what follows the name in the declaration, what follows it
    // elsewhere, what follows it for constants; the lifetime and the descriptor of `impl`s.
    ($(#[$attribute:meta])* $visibility:vis enum $name:ident { $($messages:tt)* }) => {
        $crate::__protocol! { @messages
            [$(#[$attribute])* $visibility $name () () ()] ['payload Descriptor__] []
            $($messages)*
        }
    };
    ($(#[$attribute:meta])* $visibility:vis enum $name:ident<$lifetime:lifetime $(,)?> {
        $($messages:tt)*
    }) => {
        $crate::__protocol! { @messages
            [$(#[$attribute])* $visibility $name (<$lifetime>) (<$lifetime>) (<'_>)]
            [$lifetime Descriptor__] []
            $($messages)*
        }
    };
    ($(#[$attribute:meta])* $visibility:vis enum $name:ident
        <$descriptor:ident $(= $default:ty)? $(,)?> { $($messages:tt)* }) => {
        $crate::__protocol! { @messages
            [$(#[$attribute])* $visibility $name
                (<$descriptor $(= $default)?>) (<$descriptor>) (<::core::convert::Infallible>)]
            ['payload $descriptor] []
            $($messages)*
        }
    };
    ($(#[$attribute:meta])* $visibility:vis enum $name:ident
        <$lifetime:lifetime, $descriptor:ident $(= $default:ty)? $(,)?> { $($messages:tt)* }) => {
        $crate::__protocol! { @messages
            [$(#[$attribute])* $visibility $name
                (<$lifetime, $descriptor $(= $default)?>) (<$lifetime, $descriptor>)
                (<'_, ::core::convert::Infallible>)]
            [$lifetime $descriptor] []
            $($messages)*
        }
    };

    // Takes one message, and adds it to those in brackets: its attributes, number, constant and
    // name; how its variant is written; its fields and its descriptor, each with the name, the
    // variable and the type. There are three forms of messages, each with a number and with
    // the path of one.
    (@messages $enum:tt $generics:tt [$($done:tt)*]
        $(#[$attribute:meta])* $($constant:ident =)? $number:literal => $message:ident
        { $($(#[$of_field:meta])* $field:ident: $type:ty $(as $encoding:ty)?),* $(,)? }
        $(+ $attached:ty)? $(, $($rest:tt)*)?
    ) => {
        $crate::__protocol! { @messages $enum $generics [$($done)* {
            [$(#[$attribute])*] [$($constant)?] [$number] $message
            [{
                $($(#[$of_field])* $field: $type,)*
                $(#[doc = "What comes with the message."] descriptor: $attached,)?
            }]
            [$(($field $field $type [$($encoding)?]))*] [$((descriptor descriptor $attached))?]
        }] $($($rest)*)? }
    };
    (@messages $enum:tt $generics:tt [$($done:tt)*]
        $(#[$attribute:meta])* $number:path => $message:ident
        { $($(#[$of_field:meta])* $field:ident: $type:ty $(as $encoding:ty)?),* $(,)? }
        $(+ $attached:ty)? $(, $($rest:tt)*)?
    ) => {
        $crate::__protocol! { @messages $enum $generics [$($done)* {
            [$(#[$attribute])*] [] [$number] $message
            [{
                $($(#[$of_field])* $field: $type,)*
                $(#[doc = "What comes with the message."] descriptor: $attached,)?
            }]
            [$(($field $field $type [$($encoding)?]))*] [$((descriptor descriptor $attached))?]
        }] $($($rest)*)? }
    };
    (@messages $enum:tt $generics:tt [$($done:tt)*]
        $(#[$attribute:meta])* $($constant:ident =)? $number:literal => $message:ident
        ($(#[$of_field:meta])* $type:ty $(as $encoding:ty)? $(,)?)
        $(+ $attached:ty)? $(, $($rest:tt)*)?
    ) => {
        $crate::__protocol! { @messages $enum $generics [$($done)* {
            [$(#[$attribute])*] [$($constant)?] [$number] $message
            [($(#[$of_field])* $type, $($attached,)?)]
            [(0 value $type [$($encoding)?])] [$((1 descriptor $attached))?]
        }] $($($rest)*)? }
    };
    (@messages $enum:tt $generics:tt [$($done:tt)*]
        $(#[$attribute:meta])* $number:path => $message:ident
        ($(#[$of_field:meta])* $type:ty $(as $encoding:ty)? $(,)?)
        $(+ $attached:ty)? $(, $($rest:tt)*)?
    ) => {
        $crate::__protocol! { @messages $enum $generics [$($done)* {
            [$(#[$attribute])*] [] [$number] $message
            [($(#[$of_field])* $type, $($attached,)?)]
            [(0 value $type [$($encoding)?])] [$((1 descriptor $attached))?]
        }] $($($rest)*)? }
    };
    (@messages $enum:tt $generics:tt [$($done:tt)*]
        $(#[$attribute:meta])* $($constant:ident =)? $number:literal => $message:ident
        $(+ $attached:ty)? $(, $($rest:tt)*)?
    ) => {
        $crate::__protocol! { @messages $enum $generics [$($done)* {
            [$(#[$attribute])*] [$($constant)?] [$number] $message
            [$({ #[doc = "What comes with the message."] descriptor: $attached })?]
            [] [$((descriptor descriptor $attached))?]
        }] $($($rest)*)? }
    };
    (@messages $enum:tt $generics:tt [$($done:tt)*]
        $(#[$attribute:meta])* $number:path => $message:ident
        $(+ $attached:ty)? $(, $($rest:tt)*)?
    ) => {
        $crate::__protocol! { @messages $enum $generics [$($done)* {
            [$(#[$attribute])*] [] [$number] $message
            [$({ #[doc = "What comes with the message."] descriptor: $attached })?]
            [] [$((descriptor descriptor $attached))?]
        }] $($($rest)*)? }
    };

    // All messages are taken.
    (@messages
        [
            $(#[$attribute:meta])* $visibility:vis $name:ident
            ($($declared:tt)*) ($($used:tt)*) ($($of_constants:tt)*)
        ]
        [$lifetime:lifetime $descriptor:ident]
        [$({
            [$($of_message:tt)*] [$($constant:ident)?] [$number:expr] $message:ident
            [$($shape:tt)*]
            [$(($field:tt $value:ident $type:ty [$($encoding:ty)?]))*]
            [$(($at:tt $attached:ident $attached_type:ty))?]
        })+]
    ) => {
        $(#[$attribute])*
        $visibility enum $name $($declared)* {
            $($($of_message)* $message $($shape)*,)+
        }

        #[allow(dead_code)]
        impl $name $($of_constants)* {$($(
            #[doc = ::core::concat!("The type number of `", ::core::stringify!($message), "`.")]
            $visibility const $constant: u32 = $number;
        )?)+}

        #[allow(unused_variables, clippy::all)]
        impl $($used)* $crate::typed::Protocol for $name $($used)* {
            const TYPES: &'static [(u32, &'static str)] =
                &[$(($number, ::core::stringify!($message)),)+];

            fn msg_type(&self) -> u32 {
                match self {
                    $(Self::$message { .. } => $number,)+
                }
            }

            fn payload_len(&self) -> usize {
                match self {
                    $(Self::$message { $($field: $value,)* .. } => 0_usize$(.saturating_add(
                        <$type as $crate::typed::Field<
                            '_,
                            $crate::__encoding!($($encoding)?),
                        >>::encoded_len($value),
                    ))*,)+
                }
            }

            fn write_payload<P>(
                &self,
                writer: &mut $crate::Writer<'_, P>,
            ) -> ::core::result::Result<(), $crate::WriteError> {
                match self {
                    $(Self::$message { $($field: $value,)* .. } => {
                        $(<$type as $crate::typed::Field<
                            '_,
                            $crate::__encoding!($($encoding)?),
                        >>::write($value, writer)?;)*
                    })+
                }
                ::core::result::Result::Ok(())
            }
        }

        #[allow(non_camel_case_types, clippy::all)]
        impl<$lifetime, $descriptor> $crate::typed::Carries<$descriptor> for $name $($used)*
        where
            $($($attached_type: $crate::typed::Attached<$descriptor>,)?)+
        {
            fn has_descriptor(&self) -> bool {
                match self {
                    $(Self::$message { $($at: $attached,)? .. } => false $(
                        || <$attached_type as $crate::typed::Attached<$descriptor>>::is_here(
                            $attached,
                        )
                    )?,)+
                }
            }

            fn into_descriptor(self) -> ::core::option::Option<$descriptor> {
                match self {
                    $(Self::$message { $($at: $attached,)? .. } => {
                        ::core::option::Option::None $(.or(
                            <$attached_type as $crate::typed::Attached<$descriptor>>::into_option(
                                $attached,
                            ),
                        ))?
                    })+
                }
            }
        }

        #[allow(non_camel_case_types, unused_mut, clippy::all)]
        impl<$lifetime, $descriptor>
            ::core::convert::TryFrom<$crate::Message<$lifetime, $descriptor>> for $name $($used)*
        where
            $($($attached_type: $crate::typed::Attached<$descriptor>,)?)+
        {
            type Error = $crate::typed::BadMessage<$descriptor>;

            fn try_from(
                message: $crate::Message<$lifetime, $descriptor>,
            ) -> ::core::result::Result<Self, $crate::typed::BadMessage<$descriptor>> {
                let mut parts = $crate::typed::Parts::new(message);
                let mut read = || match parts.msg_type() {
                    $(msg_type if msg_type == $number => {
                        $(let $value = <$type as $crate::typed::Field<
                            '_,
                            $crate::__encoding!($($encoding)?),
                        >>::read(&mut parts, ::core::stringify!($field))?;)*
                        parts.end()?;
                        $(let $attached = parts.attached::<$attached_type>()?;)?
                        ::core::result::Result::Ok(
                            Self::$message { $($field: $value,)* $($at: $attached,)? },
                        )
                    })+
                    _ => ::core::result::Result::Err($crate::typed::Mistake::Type),
                };
                let read = read();
                parts.finish(read)
            }
        }

        // What the compiler does not find by itself.
        #[allow(non_camel_case_types, dead_code)]
        const _: () = {
            // Two messages of one type number are an error here.
            #[repr(u32)]
            enum Types__ {
                $($message = $number,)+
            }

            struct Order__<$lifetime>(::core::marker::PhantomData<&$lifetime ()>);

            impl<$lifetime> Order__<$lifetime> {
                const CHECKED: () = {$(
                    $crate::typed::check_order(&[$((
                        <$type as $crate::typed::Field<
                            '_,
                            $crate::__encoding!($($encoding)?),
                        >>::TAKES_REST,
                        ::core::concat!(
                            "field `", ::core::stringify!($field), "` of message `",
                            ::core::stringify!($message), "` takes all that is left of the ",
                            "payload, so it has to be the last one, or say where it ends: ",
                            "`as Counted<u16>`",
                        ),
                    ),)*]);
                )+};
            }

            Order__::<'static>::CHECKED
        };
    };

    (@messages $enum:tt $generics:tt []) => {
        ::core::compile_error! { "a protocol needs a message: `NUMBER => Name`" }
    };
    (@messages $enum:tt $generics:tt $done:tt $($rest:tt)*) => {
        ::core::compile_error! { ::core::concat!(
            "a message is `NUMBER => Name`, `NUMBER => Name { field: Type, .. }` or ",
            "`NUMBER => Name(Type)`, where a field may have `as Encoding`, and then ",
            "`+ Descriptor` if it has one, and a comma behind it; this is not: ",
            $(::core::stringify!($rest), " ",)*
        ) }
    };
    ($($declaration:tt)*) => {
        ::core::compile_error! {
            "`protocol!` takes one enum, with at most a lifetime and, behind that, a type \
             parameter for the descriptor: `enum Name<'a, F> { NUMBER => Name, .. }`"
        }
    };
}

/// The encoding that a field names, or else that which follows from its type.
#[doc(hidden)]
#[macro_export]
macro_rules! __encoding {
    () => { $crate::typed::Plain<_> };
    ($encoding:ty) => { $encoding };
}
