//! PostgreSQL in a container, by testcontainers. The image is the one of the compose project; where it cannot
//! be pulled, `deploy/base-images.sh postgres` makes it.

use std::process::{Command, Stdio};

use testcontainers::{
    ContainerAsync, GenericImage, ImageExt as _, TestcontainersError,
    core::{IntoContainerPort as _, WaitFor, error::ClientError},
    runners::AsyncRunner as _,
};

const IMAGE: (&str, &str) = ("postgres", "17");

pub(super) struct Container {
    pub(super) url: String,
    _container: ContainerAsync<GenericImage>,
}

/// Starts one. `Err`: there is no engine, or no such image and none to be had, in words.
///
/// # Panics
/// If engine and image are there and PostgreSQL does not come up.
pub(super) async fn start() -> Result<Container, String> {
    let (name, tag) = IMAGE;
    let started = GenericImage::new(name, tag)
        .with_exposed_port(5432.tcp())
        .with_wait_for(WaitFor::message_on_stderr("database system is ready to accept connections"))
        .with_env_var("POSTGRES_HOST_AUTH_METHOD", "trust")
        .start()
        .await;
    let container = match started {
        Ok(container) => container,
        Err(error) if is_want(&error) => return Err(error.to_string()),
        Err(error) => panic!("{name}:{tag} does not start: {error}"),
    };
    remove_at_the_end(container.id());
    let port = container.get_host_port_ipv4(5432).await.unwrap();
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    Ok(Container { url, _container: container })
}

/// Whether the engine or the image is what failed, and not the container.
fn is_want(error: &TestcontainersError) -> bool {
    let TestcontainersError::Client(error) = error else { return false };
    matches!(
        error,
        ClientError::Init(_)
            | ClientError::InvalidDockerHost(_)
            | ClientError::PullImage { .. }
            | ClientError::CreateContainer(_)
    )
}

/// All tests share the container, so that no test may drop it, and a process that is killed drops nothing. So
/// another process waits for the end of this one, which it hears from its standard input, and removes it.
fn remove_at_the_end(id: &str) {
    let script = "trap '' HUP INT TERM; read _; exec docker rm --force --volumes \"$0\"";
    let remover = Command::new("sh")
        .args(["-c", script, id])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    // Its standard input stays open as long as this process lives.
    std::mem::forget(remover.unwrap());
}
