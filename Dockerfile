# One image for every role: control plane, gateway, agents, bridge, scripted models; the manifests name the command.
#   docker build -t ghcr.io/quarterdeck-dev/quarterdeck:0.1.0 .

ARG PYTHON=3.12

FROM docker.io/library/python:${PYTHON}-slim AS build
WORKDIR /src
RUN python -m venv /opt/quarterdeck && /opt/quarterdeck/bin/pip install --no-cache-dir uv==0.13.8
# Versions of the lock file without its hashes: the project itself has none, and both are resolved in one go.
COPY requirements.lock ./
RUN sed -e 's/ \\$//' -e '/^ *--hash/d' requirements.lock > constraints.txt
COPY pyproject.toml README.md ./
COPY src src
COPY charts charts
RUN VIRTUAL_ENV=/opt/quarterdeck /opt/quarterdeck/bin/uv pip install --no-cache --compile-bytecode \
    --constraint constraints.txt ".[agents,postgresql]" \
 && /opt/quarterdeck/bin/pip uninstall --yes pip

FROM docker.io/library/python:${PYTHON}-slim
LABEL org.opencontainers.image.title="Quarterdeck" org.opencontainers.image.licenses="Apache-2.0"
# git and ssh fetch agents' skills; ssh wants to find its user's name.
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates git openssh-client \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 65532 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin quarterdeck
COPY --from=build /opt/quarterdeck /opt/quarterdeck
# The root file system is read-only where the chart runs this; temporary files go to /tmp.
ENV PATH=/opt/quarterdeck/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /tmp
CMD ["qd", "--help"]
