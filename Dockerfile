# The image of the operator and the runner. Any base with Python 3.11 or newer will do; nothing is compiled, so it is the
# same for amd64 and arm64.
#   make image IMAGE=registry.example.com/perllm/perllm
# A private package index or certificate authority is passed to pip in secrets, which leave no trace in the image:
#   --secret id=pip,src=pip.conf --secret id=ca,src=ca.pem      with "cert = /run/secrets/ca" in pip.conf
ARG BASE_IMAGE=python:3.13-slim

# Build tools, pip and hatchling, stay in this stage.
FROM ${BASE_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements-build.lock requirements-operator.lock ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    python3 -m venv tools && \
    tools/bin/pip install --quiet --require-hashes --only-binary :all: --requirement requirements-build.lock && \
    python3 -m venv --without-pip /opt/perllm && \
    tools/bin/pip --python /opt/perllm/bin/python install --quiet --no-compile --require-hashes --only-binary :all: \
        --requirement requirements-operator.lock
COPY pyproject.toml README.md LICENSE ./
COPY operator/perllm operator/perllm
# Tests of other packages, their commands and the asynchronous half of the official client are not needed. Modules are
# compiled here because the root file system is read-only at run time, and never checked against their sources, which do
# not change.
RUN tools/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir . . && \
    tools/bin/pip --python /opt/perllm/bin/python install --quiet --no-compile --no-deps --no-index perllm-*.whl && \
    find /opt/perllm -depth -type d \( -name tests -o -path '*/kubernetes/aio' \) -exec rm -r {} + && \
    find /opt/perllm/bin -type f ! -name 'perllm*' -delete && \
    python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/perllm

# The base without tools that install or build, and without setuid bits. Licences stay, since images are redistributed.
FROM ${BASE_IMAGE} AS base
RUN library=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))') && \
    rm -rf /usr/local/bin/pip* /usr/local/bin/idle* "$library"/site-packages/* "$library"/ensurepip "$library"/idlelib \
        "$library"/tkinter "$library"/test /usr/local/include /usr/share/python-wheels \
        /usr/share/locale/* /usr/share/man/* /var/cache/* /var/lib/apt/lists/* /var/log/* /root/.cache && \
    find /usr/share -path '/usr/share/doc/*' -type f ! -name copyright -delete && \
    find / -xdev -type f -perm /6000 -exec chmod a-s {} + && \
    python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash "$library"

# Copied from scratch, so that removed files are not kept in a layer.
FROM scratch
ARG BASE_IMAGE
ARG VERSION
COPY --from=base / /
COPY --from=build /opt/perllm /opt/perllm
ENV PATH=/opt/perllm/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
LABEL org.opencontainers.image.title="perllm" \
      org.opencontainers.image.description="Places LLM inference tasks on edge and cloud GPU nodes to meet deadlines at the least energy" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
USER 65532:65532
WORKDIR /
ENTRYPOINT ["perllm"]
