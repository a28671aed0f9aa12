// Reads a list of resources as JSON and prints, for each, what its schema says against it.
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";

const KINDS = { ScaledObject, PrometheusRule, ServiceMonitor };

function problem(resource) {
  const Kind = KINDS[resource.kind];
  if (!Kind || Kind.apiVersion !== resource.apiVersion) {
    return `no schema of ${resource.apiVersion} ${resource.kind}`;
  }
  try {
    new Kind(resource).validate();
    return "";
  } catch (error) {
    return error.message;
  }
}

let text = "";
for await (const chunk of process.stdin) text += chunk;
console.log(JSON.stringify(JSON.parse(text).map(problem)));
