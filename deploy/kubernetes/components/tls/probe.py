"""Asks a service with TLS on this host for its health: probe.py [SERVICE]; exit code 0 if SERVING.

VAE_LISTEN's port and the files of VAE_TLS_*; shows the service's own certificate as a client's.
"""

import os
import sys
from pathlib import Path

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

port = os.environ.get("VAE_LISTEN", "[::]:8500").rpartition(":")[2]
certificate = Path(os.environ["VAE_TLS_CERTIFICATE"])
credentials = grpc.ssl_channel_credentials(
    Path(os.environ.get("VAE_TLS_CLIENT_CA", certificate)).read_bytes(),
    Path(os.environ["VAE_TLS_KEY"]).read_bytes(),
    certificate.read_bytes(),
)
with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
    request = HealthCheckRequest(service="".join(sys.argv[1:]))
    status = HealthStub(channel).Check(request, timeout=5).status
sys.exit(0 if status == HealthCheckResponse.SERVING else 1)
