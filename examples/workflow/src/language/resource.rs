//! `resourceArn` to a resource: the table of section 3.8.

use crate::language::{Resource, ResourceTarget};

impl Resource {
    /// Reads a `resourceArn`; `None` when it fits no row of the table. Region, account and
    /// literal `{…}` placeholders are text like any other.
    pub fn parse(arn: &str) -> Option<Self> {
        Some(Self { arn: arn.into(), target: target(arn)? })
    }
}

fn target(arn: &str) -> Option<ResourceTarget> {
    if let Some(name) = arn.strip_prefix("bus:topic/") {
        // Names of topics may hold slashes: `projects/p/topics/t`.
        return part(name, &[]).map(ResourceTarget::BusTopic);
    }
    if let Some(kind) = arn.strip_prefix("job:") {
        return part(kind, &['/', ':']).map(ResourceTarget::Job);
    }
    let mut parts = arn.splitn(5, ':');
    let (scheme, product) = (parts.next()?, parts.next()?);
    let (_region, _account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    if scheme != "acs" || resource.contains(':') {
        return None;
    }
    match (product, &*resource.split('/').collect::<Vec<_>>()) {
        ("fc", ["services", service, "functions", function]) => Some(ResourceTarget::Function {
            service: part(service, &[])?,
            function: part(function, &[])?,
        }),
        ("mns", ["", "topics", name, "messages"]) => {
            part(name, &[]).map(ResourceTarget::MessageTopic)
        }
        ("mns", ["", "queues", name, "messages"]) => {
            part(name, &[]).map(ResourceTarget::MessageQueue)
        }
        ("fnf", ["flow", name]) => part(name, &[]).map(ResourceTarget::Flow),
        _ => None,
    }
}

fn part(text: &str, forbidden: &[char]) -> Option<String> {
    let good = |c: char| !c.is_whitespace() && !c.is_control() && !forbidden.contains(&c);
    (!text.is_empty() && text.chars().all(good)).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_table() {
        let target = |arn| Resource::parse(arn).unwrap().target;
        let function = |service: &str, function: &str| ResourceTarget::Function {
            service: service.into(),
            function: function.into(),
        };
        assert_eq!(target("acs:fc:::services/s/functions/f"), function("s", "f"));
        assert_eq!(
            target("acs:fc:cn-hangzhou:{accountID}:services/fnf-demo/functions/StartJob"),
            function("fnf-demo", "StartJob")
        );
        assert_eq!(
            target("acs:fc:::services/{fc-service}/functions/{fc-function}"),
            function("{fc-service}", "{fc-function}")
        );
        assert_eq!(
            target("acs:mns:::/topics/t/messages"),
            ResourceTarget::MessageTopic("t".into())
        );
        assert_eq!(
            target("acs:mns:r:1:/queues/q/messages"),
            ResourceTarget::MessageQueue("q".into())
        );
        assert_eq!(target("acs:fnf:::flow/child"), ResourceTarget::Flow("child".into()));
        assert_eq!(
            target("bus:topic/projects/p/topics/t"),
            ResourceTarget::BusTopic("projects/p/topics/t".into())
        );
        assert_eq!(target("job:process_task"), ResourceTarget::Job("process_task".into()));
    }

    #[test]
    fn everything_else() {
        for arn in [
            "",
            "echo",
            "acs:fc:::services/s/functions/",
            "acs:fc:::services//functions/f",
            "acs:fc:::services/s/function/f",
            "acs:fc::services/s/functions/f",
            "acs:fc::::services/s/functions/f",
            "acs:fc:::/services/s/functions/f",
            "acs:mns:::topics/t/messages",
            "acs:mns:::/topics/t",
            "acs:fnf:::flows/child",
            "acs:oss:::bucket/b",
            "arn:aws:lambda:r:1:function:f",
            "bus:topic/",
            "bus:t",
            "job:",
            "job:a/b",
            "$.arn",
            "acs:fc:::services/s/functions/a b",
        ] {
            assert_eq!(Resource::parse(arn), None, "{arn}");
        }
    }
}
