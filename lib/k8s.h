/*
 * Kubernetes objects → pool and endpoints. Understood:
 *  - InferencePool, inference.networking.x-k8s.io/v1alpha2 (flat selector, targetPortNumber; with or without
 *    extensionRef) and inference.networking.k8s.io/v1 (selector.matchLabels, targetPorts[].number, endpointPickerRef).
 *    One per router.
 *  - InferenceTrafficPolicy, inferenceextension.alibabacloud.com/v1alpha1: spec.poolRef.name, spec.modelServerRuntime,
 *    and either spec.profile.pd {pdRoleLabelName, kvTransfer.bootstrapPort, trafficPolicy.prefixCache.mode} or
 *    spec.profile.single {trafficPolicy.prefixCache.mode}. Its CRD is not public: unknown fields are warnings.
 *  - Pod (and lists): an endpoint per target port if its labels match the pool's selector, its namespace is the pool's,
 *    it is Running and has a podIP. Not Ready or being deleted: PDR_ENDPOINT_OUT. A pod without phase or conditions
 *    (written by hand) counts as running and ready. With one port the endpoint has the pod's name, with several
 *    "<pod>-rank-<i>".
 *    Role: the label that the policy names, or that of RoleBasedGroup (rolebasedgroup.workloads.x-k8s.io/role up to
 *    0.6, rbg.workloads.x-k8s.io/role-name from 0.7); values prefill, decode, both. No policy and no such label, or
 *    profile.single: both.
 *    Bootstrap port: annotation sglang.ai/bootstrap-port, one or a comma list in the order of the ports ("none": null).
 *    Annotation pdroute.io/alone "true" on a decode pod: it may also do a request alone (PDR_ENDPOINT_ALONE; scheduling.md).
 *    topology_host is spec.nodeName, zone and rack come from labels topology.kubernetes.io/zone and …/rack.
 * What is wrong with pool or policy is an error; what is wrong with one pod leaves out that pod with a warning, so that
 * it cannot stop the others.
 */
#ifndef PDR_K8S_H
#define PDR_K8S_H

#include "gather.h"

/* Reads pools and policies of the whole document into g->pool. */
int pdr_k8s_read_pool(pdr_gather *g);
/* Then its pods into g->endpoints. */
int pdr_k8s_read_pods(pdr_gather *g);

/* Calls `visit` for every object of a document that is an array, a List or a single object; kind is "" for objects
 * without one. */
typedef int (*pdr_k8s_visit)(pdr_gather *g, uint32_t object, const char *kind, uint32_t index, void *context);
int pdr_k8s_each(pdr_gather *g, pdr_k8s_visit visit, void *context);

#endif
