//! The host folder that agents hand over: prepared with one right, closed to strangers, and no reason to stop serving where
//! it takes no writes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rimward_e2e::{Seen, Story, story, wait_for};
use serde_json::json;

use crate::handover_world::{BETTER, WITHIN, World, snapshot};

/// How long a refused order is watched.
const WATCHED: Duration = Duration::from_secs(3);

/// Asks at the handover socket as an agent of the next release would, and says how many bytes came back.
const ASK: &str = r#"
use Socket; chdir $ARGV[0] or die "chdir: $!";
socket(my $s, AF_UNIX, SOCK_SEQPACKET, 0) or die "socket: $!";
connect($s, pack_sockaddr_un("handover")) or do { print "refused"; exit 0 };
my $n = readlink "/proc/self/ns/net";
send($s, qq({"fds":[],"message":{"protocols":[1,2],"agent":"9","network":"other","listen":"x","more":1}}), 0);
my $got = ""; recv($s, $got, 4096, 0); print length $got;
"#;

#[test]
fn a_stranger_at_the_handover_socket_gets_nothing_and_a_strangers_socket_gives_nothing() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    story("handover-stranger", async |story: &Story| {
        let mut world = World::settled(story, &[]).await?;
        ensure!(
            rustix::process::geteuid().is_root(),
            "this story asks as another user, which takes root"
        );
        let data = world.device.data();
        let ask = |uid: u32| -> Result<String> {
            let mut perl = std::process::Command::new("/usr/bin/perl");
            perl.args(["-e", ASK]).arg(&data).uid(uid).gid(uid);
            let output = perl.output().context("perl")?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let answer = ask(0)?;
        ensure!(answer.parse::<u32>()? > 20, "{answer}");
        // Somebody opened the folder, and all folders above it.
        for path in data.ancestors().filter(|path| path.starts_with("/tmp")) {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
        }
        ensure!(ask(65534)? == "refused", "the socket's own mode");
        let socket = data.join("handover");
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777))?;
        let answer = ask(65534)?;
        ensure!(answer == "0", "a stranger was answered {answer} bytes");

        // A socket that another user put there gives nothing either: the next agent stands by without.
        std::fs::remove_file(&socket)?;
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o777))?;
        let mut stranger = std::process::Command::new("/usr/bin/perl")
            .args(["-e", LISTEN])
            .arg(&data)
            .uid(65534)
            .spawn()?;
        wait_for("the stranger's socket", WITHIN, async || {
            Ok(if socket.exists() {
                Seen::Done(())
            } else {
                Seen::NotYet(String::new())
            })
        })
        .await?;
        let next = world.start_next(&[])?;
        let outcome = wait_for("the next agent to do without", WITHIN, async || {
            let (code, words) = next.readiness().await?;
            Ok(if code == 503 && words.contains("user 65534") {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{code} {words}"))
            })
        })
        .await;
        let _ = stranger.kill();
        let _ = stranger.wait();
        outcome?;
        // It waits for the address, and has it once the holder is gone.
        world.hand_over_to(next, true).await?;
        world.answers(&world.device.host(), 1).await?;
        Ok(())
    });
}

/// Takes connections at the handover socket's name, and answers nothing.
const LISTEN: &str = r#"
use Socket; chdir $ARGV[0] or die "chdir: $!"; umask 0;
socket(my $s, AF_UNIX, SOCK_SEQPACKET, 0) or die "socket: $!";
bind($s, pack_sockaddr_un("handover")) or die "bind: $!"; listen($s, 4);
while (accept(my $c, $s)) { sleep 1 }
"#;

/// A file system of its own, unmounted when dropped.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0)
            .status();
    }
}

#[test]
fn a_full_disk_or_one_that_takes_no_writes_does_not_keep_the_next_agent_from_serving() {
    story("handover-disk", async |story: &Story| {
        let folder = story.scratch().folder("device")?;
        let data = folder.join("data");
        std::fs::create_dir_all(&data)?;
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=192m,mode=700", "tmpfs"])
            .arg(&data)
            .status()?;
        ensure!(mounted.success(), "mounting a small disk takes root");
        let _mounted = Mounted(&data);
        let mut world = World::settled_in(story, folder, &[BETTER]).await?;

        let next = world.next().await?;
        let filler = data.join("filler");
        fill(&filler)?;
        world.hand_over_to(next, true).await?;
        world.answers(&world.device.host(), 1).await?;
        std::fs::remove_file(&filler)?;
        world.order(2, 1, json!({"probationSeconds": 1}))?;
        world.wait(2, "Committed").await?;

        // The next one sees the folder read-only; a mount namespace of its own makes it so.
        let agent = rimward_e2e::rimward::binary("rimward-node-agent")?;
        let script = format!(
            "mount --bind {0} {0} && mount -o remount,bind,ro {0} && exec {1} \"$@\"",
            data.display(),
            agent.display()
        );
        let next = world.start_through(
            "unshare",
            &[
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                &script,
                "agent",
            ],
        )?;
        next.wait(true).await?;
        world.hand_over_to(next, true).await?;
        world.answers(&world.device.host(), 2).await?;
        // Nothing new is installed there, and what serves goes on.
        world.order(3, 0, json!({"probationSeconds": 1}))?;
        tokio::time::sleep(WATCHED).await;
        world.answers(&world.device.host(), 2).await?;
        ensure!(world.record()?["good"][0]["revision"] == "digits-2");

        // Back on a folder that takes writes. The one before could make no handover socket there.
        world.holder().kill();
        let next = world.start_next(&[])?;
        next.wait(false).await?;
        world.holder = Some(next);
        world.wait(3, "Committed").await?;
        Ok(())
    });
}

/// Takes what is left of a disk.
fn fill(path: &Path) -> Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create(path)?;
    let block = vec![7; 64 << 10];
    loop {
        match file.write_all(&block) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[test]
fn the_host_folder_is_prepared_with_one_right_and_no_other() {
    story("handover-prepare", async |story: &Story| {
        let scratch = story.scratch().folder("host")?;
        let folder = scratch.join("rimward");
        let prepare = |owner: &str| -> Result<String> {
            let output = std::process::Command::new("setpriv")
                .args(["--bounding-set=-all,+chown", "--inh-caps=-all"])
                .arg(rimward_e2e::rimward::binary("rimward-node-agent")?)
                .args(["prepare", "--owner", owner, "--data-dir"])
                .arg(&folder)
                .output()?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.success(), "{said}");
            Ok(said)
        };
        ensure!(prepare("65532:65532")?.contains("made for"));
        // As an agent of that user leaves it.
        for (path, is_folder) in [("blobs", true), ("blobs/ab", false), ("state.0", false)] {
            let path = folder.join(path);
            match is_folder {
                true => std::fs::create_dir(&path)?,
                false => std::fs::write(&path, "x")?,
            }
            std::os::unix::fs::chown(&path, Some(65532), Some(65532))?;
        }
        ensure!(prepare("65532:65532")?.contains("already"));
        ensure!(prepare("1000:1000")?.contains("3 files and folders"));
        for (path, (said, _)) in snapshot(&folder)? {
            ensure!(said.contains(" 1000:1000 "), "{path}: {said}");
        }
        Ok(())
    });
}
