//! Agents on one host folder, one after the other, as stories of handing over need them.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rimward_e2e::device::{Device, Package, Source, Wanted};
use rimward_e2e::load::{Load, Plan, any_inference};
use rimward_e2e::ports::free_port;
use rimward_e2e::service::{Recipe, Service};
use rimward_e2e::{Seen, Story, digits, http, wait_for};
use serde_json::{Value, json};

pub(crate) const GOOD: &str = "examples/packages/digits-1.0.0";
pub(crate) const BETTER: &str = "examples/packages/digits-1.1.0";
/// Its preflight hangs until its time is over: long enough to meet it there.
pub(crate) const HANG: &str = "wasm-models/fixtures/hang";
/// Generous: the machine may be busy with a build.
pub(crate) const WITHIN: Duration = Duration::from_secs(120);

/// A device whose folder goes from one agent to the next.
pub(crate) struct World {
    pub(crate) source: Source,
    pub(crate) device: Device,
    pub(crate) packages: Vec<Package>,
    /// Who has the folder; the device's first agent when none.
    pub(crate) holder: Option<Agent>,
    started: usize,
}

/// One more agent on the device's folder.
pub(crate) struct Agent {
    pub(crate) service: Service,
    probes: String,
}

impl Agent {
    /// The code and the words of its `/readyz`.
    pub(crate) async fn readiness(&self) -> Result<(u16, String)> {
        let url = format!("http://{}/readyz", self.probes);
        let answer = http::client()?.get(url).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Waits until it is ready, and stands by or does not.
    pub(crate) async fn wait(&self, stands_by: bool) -> Result<()> {
        let what = format!(
            "{} to be ready, standing by: {stands_by}",
            self.service.name()
        );
        let log = self.service.log();
        let outcome = wait_for(&what, WITHIN, async || {
            self.service.check_running()?;
            let (code, words) = self.readiness().await?;
            let is_so = code == 200 && words.contains("standing by") == stands_by;
            Ok(if is_so {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{code} {words}"))
            })
        });
        outcome
            .await
            .with_context(|| format!("its log is {}", log.display()))
    }

    /// A counter or gauge of its metrics.
    pub(crate) async fn metric(&self, name: &str) -> Result<f64> {
        let text = http::get(&format!("http://{}/metrics", self.probes))
            .await?
            .text()
            .await?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line
            .with_context(|| format!("no {name} in {text}"))?
            .parse()?)
    }
}

impl World {
    /// A device that runs the good release as `digits-1`, beside further signed releases.
    pub(crate) async fn settled(story: &Story, more: &[&str]) -> Result<Self> {
        let folder = story.scratch().folder("device")?;
        Self::settled_in(story, folder, more).await
    }

    pub(crate) async fn settled_in(
        story: &Story,
        folder: std::path::PathBuf,
        more: &[&str],
    ) -> Result<Self> {
        let source = Source::start(story.scratch()).await?;
        let device = Device::start("alone", folder, &source)?;
        let mut packages = Vec::new();
        for (index, folder) in [GOOD].iter().chain(more).enumerate() {
            packages.push(
                source
                    .release(folder, "digits", &format!("release-{index}"))
                    .await?,
            );
        }
        let world = Self {
            source,
            device,
            packages,
            holder: None,
            started: 1,
        };
        world.order(1, 0, json!({"probationSeconds": 1}))?;
        world.wait(1, "Committed").await?;
        world.answers(&world.device.host(), 1).await?;
        Ok(world)
    }

    /// Orders `digits-NUMBER` to be that package.
    pub(crate) fn order(&self, number: usize, package: usize, health: Value) -> Result<()> {
        self.device.order(&[Wanted {
            name: "digits",
            revision: &format!("digits-{number}"),
            package: &self.packages[package],
            health,
        }])
    }

    /// Waits until whoever holds the folder says so of `digits-NUMBER`.
    pub(crate) async fn wait(&self, number: usize, state: &str) -> Result<Value> {
        self.device
            .wait("digits", &format!("digits-{number}"), state)
            .await
    }

    /// Waits until `digits-NUMBER` answers at an address; gives how long that took.
    pub(crate) async fn answers(&self, host: &str, number: usize) -> Result<Duration> {
        let wanted = format!("digits-{number}");
        let began = Instant::now();
        let digit = digits::held_out()?.remove(0);
        let client = http::client()?;
        wait_for(&format!("{wanted} to answer"), WITHIN, async || {
            let answer = digits::ask(&client, host, "digits", &digit).await?;
            Ok(if answer.revision == wanted {
                Seen::Done(())
            } else {
                Seen::NotYet(answer.revision)
            })
        })
        .await?;
        Ok(began.elapsed())
    }

    /// Starts another agent that stands by, with further flags.
    pub(crate) fn start_next(&mut self, more: &[String]) -> Result<Agent> {
        self.started += 1;
        let probes = format!("127.0.0.1:{}", free_port()?);
        let flags = [
            &["--standby".to_owned(), format!("--metrics-listen={probes}")],
            more,
        ]
        .concat();
        let name = format!("agent-{}", self.started);
        let service = self.device.beside(&name, &flags)?;
        Ok(Agent { service, probes })
    }

    /// The same through another program, which is to run the agent with the arguments that it is given last.
    pub(crate) fn start_through(&mut self, program: &str, arguments: &[&str]) -> Result<Agent> {
        self.started += 1;
        let probes = format!("127.0.0.1:{}", free_port()?);
        let flags = ["--standby".to_owned(), format!("--metrics-listen={probes}")];
        let arguments = arguments.iter().map(|&it| it.to_owned());
        let service = Service::start(Recipe {
            name: format!("agent-{}", self.started),
            program: program.into(),
            arguments: arguments
                .chain(self.device.arguments_with(&flags))
                .collect(),
            environment: Vec::new(),
            folder: self.device.agent.folder().to_path_buf(),
        })?;
        Ok(Agent { service, probes })
    }

    /// Starts another agent that stands by, and waits until it is ready.
    pub(crate) async fn next(&mut self) -> Result<Agent> {
        let agent = self.start_next(&[])?;
        agent.wait(true).await?;
        Ok(agent)
    }

    /// The process of whoever has the folder.
    pub(crate) fn holder(&self) -> &Service {
        self.holder
            .as_ref()
            .map_or(&self.device.agent, |agent| &agent.service)
    }

    /// The holder goes, in good order or by kill -9, and an agent that stands by has the folder then; gives how long it
    /// took to have it.
    pub(crate) async fn hand_over_to(&mut self, next: Agent, orderly: bool) -> Result<Duration> {
        let began = Instant::now();
        if orderly {
            stop(self.holder())?;
        } else {
            self.holder().kill();
        }
        next.wait(false).await?;
        self.holder = Some(next);
        Ok(began.elapsed())
    }

    /// The same to an agent that is started for it.
    pub(crate) async fn hand_over(&mut self, orderly: bool) -> Result<Duration> {
        let next = self.next().await?;
        self.hand_over_to(next, orderly).await
    }

    /// What a camera would send all the time.
    pub(crate) fn load(&self, rate_per_second: u32) -> Result<Load> {
        let held_out = digits::held_out()?;
        Load::start(Plan {
            url: format!("http://{}/v2/models/digits/infer", self.device.host()),
            bodies: held_out
                .iter()
                .map(|digit| digits::request(digit).to_string().into())
                .collect(),
            rate_per_second,
            connections: 8,
            timeout: Duration::from_secs(20),
            judge: any_inference,
        })
    }

    /// The device's newest record, as it is stored.
    pub(crate) fn record(&self) -> Result<Value> {
        let mut newest = (0, Value::Null);
        for name in ["state.0", "state.1"] {
            let Ok(text) = std::fs::read_to_string(self.device.data().join(name)) else {
                continue;
            };
            let (header, record) = text.split_once('\n').context("a slot without a header")?;
            let seq: u64 = header
                .split(' ')
                .nth(2)
                .context("a header without a number")?
                .parse()?;
            if seq > newest.0 {
                newest = (seq, serde_json::from_str(record)?);
            }
        }
        ensure!(newest.0 > 0, "no record");
        Ok(newest.1["deployments"]["shop/digits"].take())
    }
}

/// Stops an agent in good order.
pub(crate) fn stop(agent: &Service) -> Result<()> {
    let ended = agent
        .stop(Duration::from_secs(60))
        .context("it does not run")?;
    ensure!(ended.success(), "{} ended with {ended}", agent.name());
    Ok(())
}

/// Everything of a folder that a write would change: names, owners, modes, times and bytes.
pub(crate) fn snapshot(folder: &Path) -> Result<BTreeMap<String, (String, Vec<u8>)>> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(path) = left.pop() {
        let data = std::fs::symlink_metadata(&path)?;
        let said = format!(
            "{:o} {}:{} inode {} links {} size {} mtime {}.{} ctime {}.{}",
            data.mode(),
            data.uid(),
            data.gid(),
            data.ino(),
            data.nlink(),
            data.size(),
            data.mtime(),
            data.mtime_nsec(),
            data.ctime(),
            data.ctime_nsec()
        );
        let bytes = if data.is_file() {
            std::fs::read(&path)?
        } else {
            Vec::new()
        };
        if data.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        }
        found.insert(path.display().to_string(), (said, bytes));
    }
    Ok(found)
}
