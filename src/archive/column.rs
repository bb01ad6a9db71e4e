//! Text columns that hold one of a few words. Each is an enum in Rust; the migrations' `check` lists the same
//! words, which `tests/schema.rs` compares.

/// Lets an enum be the value of a text column, by `ALL` and `as_str`. A word in the database that the enum
/// does not have is an error. Given with its words, the enum gets `ALL` and `as_str`, too.
///
/// `#[derive(sqlx::Type)]` would need the words a second time for logs and metrics, and asks each connection
/// once what type `text` is.
macro_rules! text_column {
    ($enum:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $enum {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word for it in the database.
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
