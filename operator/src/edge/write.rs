//! One request of a session: whether it may be tried, and what its failure says.
//!
//! Owns that a write asks whether this replica still leads, that each is bounded in time, and that one which
//! was refused waits for itself alone.

use std::time::{Duration, Instant};

use super::pauses::{Pauses, Target};
use super::session::bounded;
use crate::answers::{self, Failure};
use crate::election::Leadership;
use crate::metrics::{Category, Metrics};

/// The way of a session's requests.
pub(crate) struct Writes<'a> {
    metrics: &'a Metrics,
    leadership: &'a Leadership,
    pauses: Pauses,
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The API server refused it, or could not be reached.
    #[error("API request")]
    Api(#[source] kube::Error),
    /// No answer within the bound.
    #[error("no answer in time")]
    Late,
    /// Another replica may lead by now.
    #[error("this replica leads no more")]
    Deposed,
    /// Whether they fit is not known, or they do not.
    #[error("{0}")]
    Definitions(String),
    /// The last one was refused, and its pause is not over.
    #[error("paused")]
    Paused,
}

impl WriteError {
    /// Whether it may have been taken all the same.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Api(error) => answers::failure(error),
            Self::Late => Failure::Unknown,
            Self::Deposed | Self::Paused | Self::Definitions(_) => Failure::Refused,
        }
    }
}

impl WriteError {
    /// For people: the API server's own sentence where there is one.
    fn words(&self) -> String {
        match self {
            Self::Api(kube::Error::Api(status)) => status.message.clone(),
            Self::Api(error) => error.to_string(),
            other => other.to_string(),
        }
    }
}

impl<'a> Writes<'a> {
    /// `longest` bounds the pauses.
    pub(crate) const fn new(
        metrics: &'a Metrics,
        leadership: &'a Leadership,
        longest: Duration,
    ) -> Self {
        Self {
            metrics,
            leadership,
            pauses: Pauses::new(longest),
        }
    }

    /// Does a request. `version` is what it was planned on.
    pub(crate) async fn send<T>(
        &mut self,
        target: Target,
        version: Option<u128>,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, WriteError> {
        if !self.pauses.may_try(&target, version, Instant::now()) {
            return Err(WriteError::Paused);
        }
        let result = if let Err(words) = self.leadership.pass().await {
            Err(WriteError::Definitions(words))
        } else if self.leadership.holds() {
            let answer = bounded(request).await;
            answer.map_or(Err(WriteError::Late), |it| it.map_err(WriteError::Api))
        } else {
            Err(WriteError::Deposed)
        };
        match &result {
            Ok(_) => self.pauses.succeeded(&target),
            Err(error) => {
                self.tell(&target, error);
                let failure = error.failure();
                let lost_on = version.filter(|_| failure == Failure::Conflict);
                let refused = (failure == Failure::Refused).then(|| error.words());
                self.pauses.failed(target, lost_on, refused, Instant::now());
            }
        }
        result
    }

    /// Why a target's last write was refused, while its pause lasts.
    pub(crate) fn refused(&self, target: &Target, now: Instant) -> Option<String> {
        self.pauses.refused(target, now).map(str::to_owned)
    }

    /// What was in the way of a target is over.
    pub(crate) fn resume(&mut self, target: &Target) {
        self.pauses.succeeded(target);
    }

    /// Forgets nodes that are gone.
    pub(crate) fn keep(&mut self, exists: impl Fn(&str) -> bool) {
        self.pauses.keep(exists);
    }

    /// How long until something may be tried again.
    pub(crate) fn next(&self, now: Instant) -> Option<Duration> {
        self.pauses.next(now)
    }

    fn tell(&self, target: &Target, error: &WriteError) {
        if error.failure() == Failure::Conflict {
            self.metrics.failed(Category::Conflict);
            tracing::debug!(?target, "written by another first, planned again");
            return;
        }
        self.metrics.failed(Category::Api);
        match std::error::Error::source(error) {
            Some(source) => tracing::warn!(?target, %error, %source, "write failed"),
            None => tracing::warn!(?target, %error, "write failed"),
        }
    }
}
