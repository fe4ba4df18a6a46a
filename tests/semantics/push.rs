//! Push set by configuration: what is refused, without anybody who pushes.

use std::collections::BTreeMap;

use siftbus::{
    AdminError, Code, ConfigError, OidcToken, PushConfig, PushWrapper, SubscriptionConfig,
    SubscriptionUpdate, Topology,
};

use crate::support::World;

const URL: &str = "http://127.0.0.1:8080/push";

/// What comes of creating a subscription with this, and of updating one; nothing is stored.
async fn refused(config: SubscriptionConfig) -> AdminError {
    let w = World::new().await;
    let error = w.topic.subscribe("pushed", config.clone()).await.unwrap_err();
    assert!(w.bus.subscription("pushed").await.is_err(), "LIB-420: nothing is stored");

    let before = w.worker.config();
    let update = SubscriptionUpdate::new()
        .push_config(config.push_config)
        .exactly_once_delivery(config.exactly_once_delivery);
    match w.worker.update(update).await.unwrap_err() {
        AdminError::NoPusher { subscription } => assert_eq!(subscription, "worker"),
        other => assert_eq!(other, error),
    }
    assert_eq!(w.worker.config(), before, "LIB-420: nothing is stored");
    error
}

async fn refused_push(config: PushConfig) -> ConfigError {
    match refused(SubscriptionConfig::new().push_config(config)).await {
        AdminError::Config(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn without_a_pusher_it_is_refused() {
    let error = refused(SubscriptionConfig::new().push_config(PushConfig::new(URL))).await;
    assert_eq!(error, AdminError::NoPusher { subscription: "pushed".into() }, "LIB-420");
    assert_eq!(error.code(), Code::FailedPrecondition, "LIB-420");

    let w = World::new().await;
    let config = SubscriptionConfig::new().push_config(PushConfig::new(URL));
    let topology = Topology::new().subscription("pushed", "orders", config);
    assert!(matches!(w.bus.declare(&topology).await, Err(AdminError::NoPusher { .. })), "LIB-420");
}

#[tokio::test]
async fn an_endpoint_is_an_http_url() {
    for url in ["nope", "ftp://host/", "http://", "", "http://a b/", "https://host:port/"] {
        let config = PushConfig::new(url).no_wrapper(false);
        let error = refused_push(config).await;
        assert_eq!(error, ConfigError::PushEndpoint { url: url.into() }, "PUSH-2");
        assert_eq!(error.code(), Code::InvalidArgument, "PUSH-2, ERR-16");
    }
}

#[tokio::test]
async fn an_empty_configuration_is_that_of_a_pull_subscription() {
    let w = World::new().await;
    let config = SubscriptionConfig::new().push_config(PushConfig::default());
    let pulled = w.topic.subscribe("pulled", config).await.unwrap();
    assert_eq!(pulled.config().push_config, None, "PUSH-1");
    let update = SubscriptionUpdate::new().push_config(Some(PushConfig::default()));
    assert_eq!(w.worker.update(update).await.unwrap().push_config, None, "PUSH-1");
}

#[tokio::test]
async fn there_is_one_attribute_with_two_values() {
    for (key, value) in [("x-goog-version", "v2"), ("x-goog-version", ""), ("other", "v1")] {
        let error = refused_push(PushConfig::new(URL).attribute(key, value)).await;
        let (key, value) = (key.to_owned(), value.to_owned());
        assert_eq!(error, ConfigError::PushAttribute { key, value }, "PUSH-3");
        assert_eq!(error.code(), Code::InvalidArgument, "PUSH-3");
    }
    let error = refused_push(PushConfig::new(URL).attribute("x-goog-version", "v1beta1")).await;
    assert_eq!(error.code(), Code::Unimplemented, "PUSH-3");
}

#[tokio::test]
async fn exactly_once_delivery_is_not_for_push() {
    let config = SubscriptionConfig::new().push_config(PushConfig::new(URL));
    let error = refused(config.exactly_once_delivery(true)).await;
    assert_eq!(error, AdminError::Config(ConfigError::PushExactlyOnce), "PUSH-4, ERR-17");
    assert_eq!(error.code(), Code::InvalidArgument, "PUSH-4, EOD-13, ERR-17");
}

#[tokio::test]
async fn a_token_needs_an_account() {
    let token = OidcToken::new("").audience("https://orders.example");
    let error = refused_push(PushConfig::new(URL).oidc_token(token)).await;
    assert_eq!(error, ConfigError::NoServiceAccount, "PUSH-15");
    assert_eq!(error.code(), Code::InvalidArgument, "PUSH-15");
}

#[test]
fn a_configuration_is_data() {
    let read: Topology = serde_json::from_str(
        r#"{ "subscriptions": { "billing": { "topic": "orders", "config": { "push_config": {
            "push_endpoint": "https://billing.example/push",
            "wrapper": { "NoWrapper": { "write_metadata": true } },
            "oidc_token": { "service_account_email": "push@orders.example" },
            "attributes": { "x-goog-version": "v1" }
        } } } } }"#,
    )
    .unwrap();
    let push = PushConfig::new("https://billing.example/push")
        .no_wrapper(true)
        .oidc_token(OidcToken::new("push@orders.example"))
        .attribute("x-goog-version", "v1");
    assert_eq!(push.wrapper, PushWrapper::NoWrapper { write_metadata: true });
    assert_eq!(push.attributes, BTreeMap::from([("x-goog-version".into(), "v1".into())]));
    let config = SubscriptionConfig::new().push_config(push);
    let built = Topology::new().subscription("billing", "orders", config);
    assert_eq!(read, built, "LIB-48");
    let again: Topology = serde_json::from_str(&serde_json::to_string(&built).unwrap()).unwrap();
    assert_eq!(again, built, "LIB-48");
    let unknown = r#"{ "push_endpoint": "http://host/", "pushEndpoint": "http://host/" }"#;
    assert!(serde_json::from_str::<PushConfig>(unknown).is_err(), "LIB-48");
}
