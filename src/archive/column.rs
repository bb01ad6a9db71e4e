//! Text columns with a fixed set of values. Each is an enum in Rust. The migrations' `check` lists the same values, and
//! `tests/schema.rs` compares the two.

/// Makes an enum the type of a text column, with `ALL` and `as_str`. A value in the database that the enum does not
/// have is an error. If the words are given, the macro also defines `ALL` and `as_str`.
///
/// `#[derive(sqlx::Type)]` would need the words a second time for logs and metrics, and would query the type `text`
/// once for each connection.
macro_rules! text_column {
    ($enum:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $enum {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value in the database.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        $crate::archive::column::text_column!($enum);
    };
    ($enum:ident) => {
        impl sqlx::Type<sqlx::Postgres> for $enum {
            fn type_info() -> sqlx::postgres::PgTypeInfo {
                <str as sqlx::Type<sqlx::Postgres>>::type_info()
            }

            fn compatible(column: &sqlx::postgres::PgTypeInfo) -> bool {
                <str as sqlx::Type<sqlx::Postgres>>::compatible(column)
            }
        }

        impl sqlx::postgres::PgHasArrayType for $enum {
            fn array_type_info() -> sqlx::postgres::PgTypeInfo {
                <&str as sqlx::postgres::PgHasArrayType>::array_type_info()
            }
        }

        impl sqlx::Encode<'_, sqlx::Postgres> for $enum {
            fn encode_by_ref(
                &self,
                arguments: &mut sqlx::postgres::PgArgumentBuffer,
            ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
                <&str as sqlx::Encode<sqlx::Postgres>>::encode(self.as_str(), arguments)
            }
        }

        impl<'r> sqlx::Decode<'r, sqlx::Postgres> for $enum {
            fn decode(value: sqlx::postgres::PgValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
                let word = <&str as sqlx::Decode<sqlx::Postgres>>::decode(value)?;
                let is_named = |value: &&Self| value.as_str() == word;
                let value = Self::ALL.iter().find(is_named).copied();
                value.ok_or_else(|| format!("{word:?} is no {}", stringify!($enum)).into())
            }
        }

        impl serde::Serialize for $enum {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

pub(super) use text_column;

use crate::matrix::Membership;

text_column!(Membership);
