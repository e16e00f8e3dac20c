//! A JWT gate for Envoy, Istio and NGINX.
