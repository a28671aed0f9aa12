"""What a service is started with: its options, and a Triton for each GPU."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from reelserve.pipeline.contract import PUBLIC_MODEL
from reelserve.runtimes.export_lock import ExportLock
from reelserve.server.frontend.connections import KEEPALIVE_S
from reelserve.server.frontend.upstream import Secret
from reelserve.server.launch.allocator import allocator_environment
from reelserve.server.launch.installation import native_installation, pip_installation
from reelserve.server.launch.repository_check import is_for_gpu
from reelserve.server.launch.run_folder import region_prefix
from reelserve.server.launch.server_log import Format, ServerLog
from reelserve.server.launch.triton_process import TritonOptions, TritonProcess
from reelserve.server.progress import VARIABLE


@dataclass(frozen=True)
class ServeOptions:
    """How to run a service.

    Args:
        model_repository: Folder with one folder a model.
        host: Address to listen on.
        grpc_port: TCP port of gRPC; 0 takes a free one.
        http_port: TCP port of the probes; 0 takes a free one.
        metrics_port: TCP port of the metrics; 0 takes a free one.
        gpus: One Triton for each, by the names that CUDA has for them; empty: one Triton.
        tritonserver: NVIDIA's own binary; None uses the pip-installed one.
        log_file: Where the log of server, requests and Triton goes; None keeps it until the end.
        log_format: How its lines are written.
        log_prompts: Whether prompts come into log and traces.
        otlp_endpoint: Collector that gets traces; None makes none.
        ready_timeout_s: Bound on the start.
        drain_timeout_s: How long clips in flight may go on after SIGTERM.
        hang_timeout_s: How long a process may be stopped, or Triton silent.
        keepalive_s: Interval of pings to a silent caller.
        max_connection_age_s: Age at which a caller's connection is ended; None for no end.
        verify: Whether every file that Triton may run is compared with its export first.
        tls_cert: PEM file of the certificate of the gRPC port; None is plain text.
        tls_key: PEM file of its private key.
        tls_client_ca: PEM file of the authorities that must have signed callers' certificates.
        api_keys: File of the keys of callers; None asks for none.
        allow_anonymous: Whether whoever reaches the port may call, from other machines too.
        single_user: Whether nobody else reaches `/dev/shm` and the temporary folder, as in a pod.
        extra_arguments: Passed to `tritonserver` as they are, last.
    """

    model_repository: Path
    host: str = "127.0.0.1"
    grpc_port: int = 0
    http_port: int = 0
    metrics_port: int = 0
    gpus: tuple[str, ...] = ()
    tritonserver: Path | None = None
    log_file: Path | None = None
    log_format: Format = "text"
    log_prompts: bool = False
    otlp_endpoint: str | None = None
    ready_timeout_s: float = 120.0
    drain_timeout_s: float = 300.0
    hang_timeout_s: float = 30.0
    keepalive_s: float = KEEPALIVE_S
    max_connection_age_s: float | None = None
    verify: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    api_keys: Path | None = None
    allow_anonymous: bool = False
    single_user: bool = False
    extra_arguments: tuple[str, ...] = ()

    def to_args(self) -> list[str]:
        """Arguments of `reelserve serve` that mean these options."""
        ports = (f"{name}_port" for name in ("grpc", "http", "metrics"))
        timeouts = (f"{name}_timeout_s" for name in ("ready", "drain", "hang"))
        plain = ("model_repository", "host", *ports, *timeouts, "keepalive_s", "log_format")
        files = ("tritonserver", "tls_cert", "tls_key", "tls_client_ca", "api_keys")
        optional = (*files, "max_connection_age_s", "otlp_endpoint")
        given = (name for name in optional if getattr(self, name) is not None)
        switches = ("verify", "allow_anonymous", "single_user", "log_prompts")
        return [
            *(f"{_flag(name)}={getattr(self, name)}" for name in plain),
            f"--log-file={self.log_file or ''}",
            *([f"--gpus={','.join(self.gpus)}"] if self.gpus else []),
            *(f"{_flag(name)}={getattr(self, name)}" for name in given),
            *(_flag(name) for name in switches if getattr(self, name)),
            *(f"--triton-argument={text}" for text in self.extra_arguments),
        ]


def _flag(field: str) -> str:
    return f"--{field.removesuffix('_s').replace('_', '-')}"


def tritons_of(
    options: ServeOptions,
    lock: ExportLock,
    run_dir: Path,
    shared: Path,
    log: ServerLog,
) -> dict[str, TritonProcess]:
    """Tritons by name, one for each GPU; not started yet.

    Raises:
        InstallationError: If there is no usable Triton server.
    """
    native, secret = options.tritonserver, Secret()
    installation = native_installation(native) if native else pip_installation(run_dir)
    repository = _linked_repository(options.model_repository, run_dir, whole=native is not None)
    usual = allocator_environment(beside_gpu=is_for_gpu(lock))
    allocator = {name: value for name, value in usual.items() if name not in os.environ}
    tritons = {}
    for number, gpu in enumerate(options.gpus or (None,)):
        visible = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        name = "triton" if gpu is None else f"gpu{gpu}"
        socket_folder = shared / f"triton{number}"
        socket_folder.mkdir(mode=0o700)
        tritons[name] = TritonProcess(
            TritonOptions(
                installation=installation,
                repository=repository,
                config_name=lock.config_name,
                secret=secret,
                region_prefix=f"{region_prefix(shared)}{number}_",
                socket_folder=socket_folder,
                run_dir=run_dir,
                environment={**allocator, **visible, VARIABLE: str(shared)},
                ready_timeout_s=options.ready_timeout_s,
                extra_arguments=options.extra_arguments,
            ),
            partial(log.output, name),
        )
    return tritons


def _linked_repository(repository: Path, run_dir: Path, *, whole: bool) -> Path:
    """Links to the models under a plain path, whatever the repository's own is.

    Args:
        repository: The models.
        run_dir: Folder for the links.
        whole: Whether every stage is a step of the ensemble. NVIDIA's own backends hand a GPU's
            tensors on rightly; ours do not (`text_to_video/configs/`).
    """
    linked = run_dir / "model_repository"
    linked.mkdir()
    for model in sorted(path.parent for path in repository.resolve().glob("*/config.pbtxt")):
        if whole and model.name == PUBLIC_MODEL:
            (linked / model.name).mkdir()
            for part in ("config.pbtxt", "1"):
                (linked / model.name / part).symlink_to(model / part)
        else:
            (linked / model.name).symlink_to(model, target_is_directory=True)
    return linked
