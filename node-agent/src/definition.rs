//! Whether the API server has the definition of EdgeNode that this agent was built for.
//!
//! Owns the looks: by name, metadata only, before orders are taken and before something is written, and at no other
//! time. An API server whose definition is older gives orders without the fields that it does not know, and drops
//! those of a status. What follows is `rimward_core::definitions`'s to say. Must never keep anything from serving.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use rimward_core::definitions::{Found, Standing, judge};
use rimward_crds::revision;
use tokio::time::{Instant, sleep, timeout};

/// What an agent reads and writes.
const NAME: &str = "edgenodes.rimward.dev";
/// For so long a look is good for writes, and what was amiss is not looked at again.
const FRESH: Duration = Duration::from_secs(10);
/// After a look that got no answer.
const RETRY: Duration = Duration::from_secs(3);
/// How long a look may take.
const LOOK_SECONDS_MAX: u64 = 20;

/// Looks at the definition. Clones share what they saw.
#[derive(Clone)]
pub struct Definition {
    api: Api<PartialObjectMeta<CustomResourceDefinition>>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    last: Option<(Instant, Standing)>,
    /// What was said last: each thing is told once.
    told: Option<String>,
}

impl Definition {
    /// Of the API server of that client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            api: Api::all(client),
            seen: Arc::default(),
        }
    }

    /// Says whether something may be written, by a look that is not old.
    ///
    /// # Errors
    /// When it does not fit, or could not be looked at.
    pub async fn allows(&self) -> anyhow::Result<()> {
        let recent = self.lock().last.clone();
        let standing = match recent {
            Some((at, standing)) if at.elapsed() < FRESH => standing,
            _ => self.look().await?,
        };
        match standing {
            Standing::Fit(_) => Ok(()),
            Standing::Unfit(words) => anyhow::bail!(words),
        }
    }

    /// Returns once it fits. Says whether it did at once: else what was read before lacks fields, or may.
    pub async fn fits(&self) -> bool {
        let mut at_once = true;
        loop {
            match self.look().await {
                Ok(Standing::Fit(_)) => return at_once,
                Ok(Standing::Unfit(_)) => sleep(FRESH).await,
                Err(error) => {
                    tracing::debug!(error = format!("{error:#}"), "definition not looked at");
                    sleep(RETRY).await;
                }
            }
            at_once = false;
        }
    }

    async fn look(&self) -> anyhow::Result<Standing> {
        let asked = Instant::now();
        let longest = Duration::from_secs(LOOK_SECONDS_MAX);
        let found = match timeout(longest, self.api.get(NAME)).await? {
            Ok(object) if object.metadata.deletion_timestamp.is_some() => Found::Leaving,
            Ok(object) => Found::There(revision::of(&object.metadata)),
            Err(kube::Error::Api(answer)) if answer.code == 404 => Found::Missing,
            Err(kube::Error::Api(answer)) if answer.code == 403 => Found::Hidden,
            Err(error) => return Err(error.into()),
        };
        let standing = judge([(NAME, found)], revision::REVISION);
        let mut seen = self.lock();
        let words = match &standing {
            Standing::Fit(words) => words.clone(),
            Standing::Unfit(words) => Some(words.clone()),
        };
        if words != seen.told {
            match (&standing, &words) {
                (Standing::Unfit(words), _) => {
                    tracing::error!("{words}; what runs goes on");
                }
                (_, Some(words)) => tracing::warn!("{words}"),
                (_, None) => tracing::info!("the definition of EdgeNode is as it should be"),
            }
            seen.told = words;
        }
        seen.last = Some((asked, standing.clone()));
        Ok(standing)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
