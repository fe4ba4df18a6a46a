//! The client: one request a command, blocking.

use std::io::{BufRead, BufReader};

use serde_json::Value;
use ureq::Agent;
use ureq::http::Response;

/// A server to talk to.
pub(crate) struct Client {
    agent: Agent,
    url: String,
}

/// What to submit.
pub(crate) struct Submit {
    pub(crate) kind: String,
    pub(crate) args: String,
    pub(crate) key: Option<String>,
    pub(crate) run_at: Option<String>,
    pub(crate) deadline: Option<String>,
}

type Body = Response<ureq::Body>;

impl Client {
    pub(crate) fn new(url: &str) -> Self {
        let config = Agent::config_builder().http_status_as_error(false).build();
        Self { agent: config.into(), url: url.trim_end_matches('/').to_owned() }
    }

    /// Answers the id.
    pub(crate) fn submit(&self, job: &Submit) -> Result<String, String> {
        let mut request = self
            .agent
            .post(format!("{}/", self.url))
            .header("Content-Type", "application/json")
            .header("X-Job-Kind", &job.kind);
        let headers = [
            ("Idempotency-Key", &job.key),
            ("X-Run-At", &job.run_at),
            ("X-Deadline", &job.deadline),
        ];
        for (name, value) in headers {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        text(self.sent(request.send(&job.args))?)
    }

    pub(crate) fn get(&self, id: &str, wait: Option<&str>) -> Result<Value, String> {
        let mut request = self.agent.get(self.job(id)?);
        if let Some(wait) = wait {
            request = request.query("wait", wait);
        }
        json(self.sent(request.call())?)
    }

    pub(crate) fn list(
        &self,
        filters: &[(&str, Option<String>)],
        limit: usize,
    ) -> Result<Vec<Value>, String> {
        let mut request = self.agent.get(format!("{}/", self.url));
        request = request.query("limit", limit.to_string());
        for (name, value) in filters {
            if let Some(value) = value {
                request = request.query(*name, value);
            }
        }
        let mut page = json(self.sent(request.call())?)?;
        match page.get_mut("jobs").map(Value::take) {
            Some(Value::Array(jobs)) => Ok(jobs),
            _ => Err("the server answered no list".to_owned()),
        }
    }

    pub(crate) fn cancel(&self, id: &str) -> Result<Value, String> {
        json(self.sent(self.agent.delete(self.job(id)?).call())?)
    }

    pub(crate) fn retry(&self, id: &str) -> Result<Value, String> {
        let url = format!("{}/retry", self.job(id)?);
        json(self.sent(self.agent.post(url).send_empty())?)
    }

    /// The documents of a job, one after each change, until it is over.
    pub(crate) fn events(
        &self,
        id: &str,
    ) -> Result<impl Iterator<Item = Result<Value, String>> + use<>, String> {
        let url = format!("{}/events", self.job(id)?);
        let body = self.sent(self.agent.get(url).call())?.into_body();
        let lines = BufReader::new(body.into_reader()).lines();
        Ok(lines.filter_map(|line| match line {
            Ok(line) => {
                let data = line.strip_prefix("data:")?;
                Some(serde_json::from_str(data).map_err(|error| error.to_string()))
            }
            Err(error) => Some(Err(error.to_string())),
        }))
    }

    /// Ids are checked here, so that a path cannot be made of one.
    fn job(&self, id: &str) -> Result<String, String> {
        let id: jobs::JobId = id.parse().map_err(|error| format!("{error}"))?;
        Ok(format!("{}/{id}", self.url))
    }

    fn sent(&self, answer: Result<Body, ureq::Error>) -> Result<Body, String> {
        let answer = answer.map_err(|error| format!("{}: {error}", self.url))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = json(answer).unwrap_or_default();
        match body["error"]["message"].as_str() {
            Some(message) => Err(message.to_owned()),
            None => Err(format!("the server answered {status}")),
        }
    }
}

fn text(mut answer: Body) -> Result<String, String> {
    answer.body_mut().read_to_string().map_err(|error| error.to_string())
}

fn json(answer: Body) -> Result<Value, String> {
    serde_json::from_str(&text(answer)?).map_err(|error| format!("no JSON came: {error}"))
}
