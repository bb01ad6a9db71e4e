//! The parameters of a connection string, by their names in PostgreSQL's documentation (libpq, "Parameter Key Words").
//!
//! The driver logs an unknown parameter with its value, which may be a secret. So it receives only parameters that it
//! uses. Names that are not in this list are never shown, because they may be a part of a password: in
//! `?password=a&b`, the password may be `a&b`.

use std::net::IpAddr;

/// How a parameter is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    /// It is used, under this name.
    Used(&'static str),
    /// `options[NAME]`, a form of the driver: one setting of the session.
    Setting,
    /// It has no effect here, which does no harm.
    Ignored(&'static str),
    /// It is not supported, and ignoring it would change the meaning.
    Refused(&'static str),
}

use Parameter::{Ignored, Refused, Used};

const UNSUPPORTED: &str = "which Backscroll does not support: remove it";

/// Only names in this list are ever shown.
const NAMES: [(&str, Parameter); 63] = [
    ("host", Used("host")),
    ("hostaddr", Used("host")),
    ("port", Used("port")),
    ("dbname", Used("dbname")),
    ("user", Used("user")),
    ("password", Used("password")),
    ("application_name", Used("application_name")),
    ("options", Used("options")),
    ("sslmode", Used("sslmode")),
    ("ssl-mode", Used("sslmode")),
    ("sslrootcert", Used("sslrootcert")),
    ("ssl-root-cert", Used("sslrootcert")),
    ("ssl-ca", Used("sslrootcert")),
    ("sslcert", Used("sslcert")),
    ("ssl-cert", Used("sslcert")),
    ("sslkey", Used("sslkey")),
    ("ssl-key", Used("sslkey")),
    ("statement-cache-capacity", Used("statement-cache-capacity")),
    ("connect_timeout", Ignored("connect_timeout")),
    ("client_encoding", Ignored("client_encoding")),
    ("fallback_application_name", Ignored("fallback_application_name")),
    ("keepalives", Ignored("keepalives")),
    ("keepalives_idle", Ignored("keepalives_idle")),
    ("keepalives_interval", Ignored("keepalives_interval")),
    ("keepalives_count", Ignored("keepalives_count")),
    ("tcp_user_timeout", Ignored("tcp_user_timeout")),
    ("load_balance_hosts", Ignored("load_balance_hosts")),
    ("sslcompression", Ignored("sslcompression")),
    ("sslsni", Ignored("sslsni")),
    ("target_session_attrs", Ignored("target_session_attrs")),
    ("channel_binding", Ignored("channel_binding")),
    ("gssencmode", Ignored("gssencmode")),
    ("sslnegotiation", Ignored("sslnegotiation")),
    ("passfile", Refused("`passfile`: name that file in the environment variable PGPASSFILE instead")),
    ("service", Refused("`service`: no service file is read; write its values out")),
    ("servicefile", Refused("`servicefile`: no service file is read; write its values out")),
    (
        "sslpassword",
        Refused("`sslpassword`: no encrypted key can be read; decrypt it into a file of mode 0600"),
    ),
    ("require_auth", Refused("`require_auth`")),
    ("sslcertmode", Refused("`sslcertmode`")),
    ("sslcrl", Refused("`sslcrl`")),
    ("sslcrldir", Refused("`sslcrldir`")),
    ("ssl_min_protocol_version", Refused("`ssl_min_protocol_version`")),
    ("ssl_max_protocol_version", Refused("`ssl_max_protocol_version`")),
    ("requiressl", Refused("`requiressl`: write `sslmode=require`")),
    ("requirepeer", Refused("`requirepeer`")),
    ("krbsrvname", Refused("`krbsrvname`")),
    ("gsslib", Refused("`gsslib`")),
    ("gssdelegation", Refused("`gssdelegation`")),
    ("replication", Refused("`replication`")),
    ("scram_client_key", Refused("`scram_client_key`")),
    ("scram_server_key", Refused("`scram_server_key`")),
    ("oauth_issuer", Refused("`oauth_issuer`")),
    ("oauth_client_id", Refused("`oauth_client_id`")),
    ("oauth_client_secret", Refused("`oauth_client_secret`")),
    ("pgbouncer", Refused("`pgbouncer`: Backscroll needs PostgreSQL itself, or a pooler in session mode")),
    ("schema", Refused("`schema`: Backscroll has schemas of its own")),
    ("passwd", Refused("`passwd`: the parameter is called `password`")),
    ("pass", Refused("`pass`: the parameter is called `password`")),
    ("pwd", Refused("`pwd`: the parameter is called `password`")),
    ("username", Refused("`username`: the parameter is called `user`")),
    ("database", Refused("`database`: the parameter is called `dbname`")),
    ("db", Refused("`db`: the parameter is called `dbname`")),
    ("ssl", Refused("`ssl`: write `sslmode=require`, or better `sslmode=verify-full`")),
];

impl Parameter {
    /// `None`: there is no such parameter. Its name must not be shown.
    pub(super) fn named(name: &str) -> Option<Self> {
        if name.starts_with("options[") && name.ends_with(']') {
            return Some(Self::Setting);
        }
        let known = NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, parameter)| *parameter)
    }

    /// The correct name, if only the case is wrong.
    pub(super) fn in_lower_case(name: &str) -> Option<&'static str> {
        NAMES.iter().map(|(known, _)| *known).find(|known| known.eq_ignore_ascii_case(name))
    }
}

/// The error in the value of a parameter. The value is not quoted.
pub(super) fn problem(name: &str, value: &str) -> Option<String> {
    let one_of = |values: &[&str]| {
        (!values.contains(&value)).then(|| format!("has a `{name}` that is none of {}", values.join(", ")))
    };
    let only = |values: &[&str]| (!values.contains(&value)).then(|| format!("has a `{name}` {UNSUPPORTED}"));
    match name {
        "sslmode" => one_of(&["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]),
        "port" => (!value.parse::<u16>().is_ok_and(|port| port > 0))
            .then(|| "has a port that is not a number from 1 to 65535".to_owned()),
        "hostaddr" => {
            value.parse::<IpAddr>().is_err().then(|| "has a `hostaddr` that is not one IP address".to_owned())
        }
        "statement-cache-capacity" => {
            value.parse::<u32>().is_err().then(|| format!("has a `{name}` that is not a number"))
        }
        "target_session_attrs" => only(&["any", "read-write", "primary"]),
        "channel_binding" | "gssencmode" => only(&["disable", "prefer"]),
        "sslnegotiation" => only(&["postgres"]),
        "client_encoding" => only(&["auto", "utf8", "UTF8", "utf-8", "UTF-8"]),
        _ => None,
    }
}

/// Why a parameter is refused.
pub(super) fn refusal(reason: &str) -> String {
    if reason.contains(':') {
        format!("has the parameter {reason}")
    } else {
        format!("has the parameter {reason}, {UNSUPPORTED}")
    }
}
