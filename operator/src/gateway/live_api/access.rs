//! May they: one SubjectAccessReview for each request, so that RBAC alone decides.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

use super::identity::User;
use super::request::ResourceRequest;
use super::status::Refusal;
use super::{GROUP, VERSION};

/// Asks the API server whether `user` may do what `request` says.
pub(crate) async fn authorize(
    client: &Client,
    user: &User,
    request: &ResourceRequest,
) -> Result<(), Refusal> {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: user.uid.clone(),
            groups: Some(user.groups.clone()).filter(|groups| !groups.is_empty()),
            extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
            resource_attributes: Some(ResourceAttributes {
                group: Some(GROUP.to_owned()),
                version: Some(VERSION.to_owned()),
                resource: Some(request.resource.resource().to_owned()),
                subresource: request.resource.subresource().map(str::to_owned),
                verb: Some(request.verb.to_owned()),
                namespace: request.namespace.clone(),
                name: request.name.clone(),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let answer = api
        .create(&PostParams::default(), &review)
        .await
        .map_err(|error| {
            tracing::warn!(%error, "a SubjectAccessReview failed");
            Refusal::new(
                500,
                "InternalError",
                "the API server could not be asked whether this is allowed",
            )
        })?;
    let status = answer.status.unwrap_or_default();
    if status.allowed && status.denied != Some(true) {
        return Ok(());
    }
    let mut resource = request.resource.resource().to_owned();
    if let Some(subresource) = request.resource.subresource() {
        resource = format!("{resource}/{subresource}");
    }
    let place = match &request.namespace {
        Some(namespace) => format!("in the namespace \"{namespace}\""),
        None => "at the cluster scope".to_owned(),
    };
    Err(Refusal::new(
        403,
        "Forbidden",
        format!(
            "{resource}.{GROUP}{} is forbidden: User \"{}\" cannot {} resource \"{resource}\" in API group \"{GROUP}\" {place}",
            request
                .name
                .as_ref()
                .map(|name| format!(" \"{name}\""))
                .unwrap_or_default(),
            user.name,
            request.verb,
        ),
    ))
}
