//! `wire_enum!` declares an enum whose variants have a code on the wire and a name that users read and write.

macro_rules! wire_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $code:literal, $text:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vmeta])* $variant,)* }

        impl $name {
            /// Every variant, in the order of its code.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The code on the wire (H.273's own if H.273 has one).
            pub const fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)* }
            }
            /// The variant of a code, or `None` for one that Millrace has no formula for.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
            /// The name as a user reads and writes it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
