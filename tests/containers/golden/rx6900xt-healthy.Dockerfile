# The training image of the stack rocm7.2: torch 2.13.0 (rocm 7.2), Axolotl 0.19.0, bitsandbytes 0.50.2.
# Written by `gpu-setup image render`; build it with `gpu-setup image build`, which adds lock.txt, worker/ and wheels/.
# Why this stack: Radeon RX 6900 XT (gfx1030); kernel 6.17.0-14-generic meets the minimum 6.8.
# Note: unverified: the stack rocm7.2 has not been built and run for this project yet.
# Note: torch and the libraries that it brings cannot be checked: no sha256 is known (unverified).
# Note: base: the index's digest, as pinned by several public projects in September 2026; not pulled by this
#   project: unverified.

# A plain system is enough: torch's wheels include ROCM 7.2's user-space libraries; the kernel driver is the host's.
FROM ubuntu:24.04@sha256:008173c23f95b170204355c12626cb5a965d779a7e1283b09e9cffbb1bf33ca3 AS system

# gcc, libc6-dev and Python.h are kept in the image: Triton compiles its launchers when training starts.
# Without version numbers, because an archive keeps only the newest. A base that has them all needs no network.
# hadolint ignore=DL3008
RUN --mount=type=cache,id=gpu-setup-lists-ubuntu-24-04,target=/var/lib/apt/lists \
    --mount=type=cache,id=gpu-setup-apt-ubuntu-24-04,target=/var/cache/apt,sharing=locked \
    set -eu; \
    if ! dpkg -s ca-certificates gcc libc6-dev python3 python3-dev >/dev/null 2>&1; then \
        rm -f /etc/apt/apt.conf.d/docker-clean; \
        apt-get -o APT::Update::Error-Mode=any update; \
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev python3 python3-dev; \
    fi; \
    python3 -c 'import sys; assert "%d.%d" % sys.version_info[:2] == "3.12", "the base has Python " + sys.version'; \
    useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin trainer; \
    chmod 0711 /root

FROM system AS environment
ENV PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PROGRESS_BAR=off
# hadolint ignore=DL3008
RUN --mount=type=cache,id=gpu-setup-lists-ubuntu-24-04,target=/var/lib/apt/lists \
    --mount=type=cache,id=gpu-setup-apt-ubuntu-24-04,target=/var/cache/apt,sharing=locked \
    set -eu; \
    if ! dpkg -s python3-venv >/dev/null 2>&1; then \
        apt-get -o APT::Update::Error-Mode=any update; \
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv; \
    fi; \
    python3 -m venv /opt/gpu-setup/env

# torch separately, because its builds differ by index: first a copy in wheels/, then the index of this stack.
# No sha256 of it or of the libraries that it brings is known: it is not checked (unverified).
COPY torch.txt /opt/gpu-setup/torch.txt
# The secrets are files for this step only: a CA bundle (--ca) and pip's settings (--pip-config); the image keeps neither.
RUN --mount=type=cache,id=gpu-setup-pip,target=/root/.cache/pip \
    --mount=type=bind,source=wheels,target=/wheels \
    --mount=type=secret,id=ca,target=/run/secrets/ca \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    set -eu; \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    if ls /wheels/torch-2.13.0*.whl >/dev/null 2>&1; then \
        /opt/gpu-setup/env/bin/pip install --no-index --find-links /wheels -r /opt/gpu-setup/torch.txt; \
    else \
        PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/rocm7.2 /opt/gpu-setup/env/bin/pip install --index-url https://download.pytorch.org/whl/rocm7.2 -r /opt/gpu-setup/torch.txt; \
    fi; \
    /opt/gpu-setup/env/bin/pip freeze >/tmp/frozen; \
    grep '^torch==' /tmp/frozen >/opt/gpu-setup/constraints.txt

# All other packages exactly as locked (rocm.txt), with --no-deps: no dependency can install another torch.
# If wheels/ has Axolotl, it is assumed to be complete, and no index is used.
COPY lock.txt /opt/gpu-setup/lock.txt
RUN --mount=type=cache,id=gpu-setup-pip,target=/root/.cache/pip \
    --mount=type=bind,source=wheels,target=/wheels \
    --mount=type=secret,id=ca,target=/run/secrets/ca \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    set -eu; \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    if ls /wheels/axolotl-0.19.0-*.whl >/dev/null 2>&1; then \
        /opt/gpu-setup/env/bin/pip install --no-index --find-links /wheels --no-deps --require-hashes -r /opt/gpu-setup/lock.txt; \
    else \
        /opt/gpu-setup/env/bin/pip install --find-links /wheels --no-deps --require-hashes -r /opt/gpu-setup/lock.txt; \
    fi; \
    /opt/gpu-setup/env/bin/python -c 'import torch; v = torch.version; found = (v.cuda, v.hip); print("torch", torch.__version__, found); wanted = (None, "7.2"); assert all(f is None if w is None else (f or "").startswith(w) for f, w in zip(found, wanted)), "torch is built for another device"'

# The image itself: the system and the finished environment, without the build tools.
FROM system
COPY --from=environment /opt/gpu-setup /opt/gpu-setup
# PIP_CONSTRAINT: an image that is based on this one keeps its torch.
ENV PATH=/opt/gpu-setup/env/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/opt/gpu-setup/worker \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_CONSTRAINT=/opt/gpu-setup/constraints.txt \
    TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL=1 \
    AXOLOTL_DO_NOT_TRACK=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    WANDB_MODE=disabled
USER 10001:10001
WORKDIR /tmp
CMD ["python", "-m", "gpu_setup_worker.verify"]
# Last, because it changes most often: a new worker or a new gpu-setup rebuilds nothing above.
COPY worker /opt/gpu-setup/worker
LABEL org.opencontainers.image.title="gpu-setup training image (rocm7.2)" \
      org.opencontainers.image.version="VERSION" \
      org.opencontainers.image.base.name="ubuntu:24.04" \
      org.opencontainers.image.base.digest="sha256:008173c23f95b170204355c12626cb5a965d779a7e1283b09e9cffbb1bf33ca3" \
      gpu-setup.tool-version="VERSION" \
      gpu-setup.stack="rocm7.2" \
      gpu-setup.runtime="rocm 7.2" \
      gpu-setup.torch="2.13.0" \
      gpu-setup.torch-verified="unverified" \
      gpu-setup.requirement="torch==2.13.0+rocm7.2" \
      gpu-setup.python="3.12" \
      gpu-setup.lock="85fe47172a1fcc6fe2df85cd4f4a593c435ded78d9ddae526015d7488e6ad9b3" \
      gpu-setup.verified="unverified"
