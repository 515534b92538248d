# syntax=docker/dockerfile:1
# The images, by target:
#
#   docker build --target gateway -t sightread-gateway:0.1.0 .
#   docker build --target gateway --build-arg TRACING=true -t sightread-gateway:0.1.0-tracing .
#   docker build --target training -t sightread-training:0.1.0 .
#   docker build --target training --build-arg DEVICE=gpu -t sightread-training:0.1.0-gpu .
#   docker build --target model-server -t sightread-model-server:0.1.0 .
#   docker build --target model-server --build-arg DEVICE=gpu -t sightread-model-server:0.1.0-gpu .

ARG DEVICE=cpu

FROM python:3.11-slim-bookworm AS python
# pip's own checks for news cost time and tell nobody anything here
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1
WORKDIR /build


# The project itself, built with the tools that the lock names. It lies in a layer of its own, after the packages:
# a release that changes no package moves a megabyte, not all of them.
FROM python AS project
COPY requirements/all.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    awk '/^[^ ]/ { kept = /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/ } kept' all.lock > tools.lock \
 && pip install --require-hashes --requirement tools.lock
COPY pyproject.toml README.md LICENSE sightread.py ./
COPY serving serving
COPY terminal terminal
COPY training training
RUN python -m venv --without-pip /opt/sightread \
 && pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && pip --python /opt/sightread/bin/python install --no-deps --no-index --root /project /wheels/*.whl


# In training's image "sightread evaluate" asks a service, as a client of it.
FROM project AS training-project
COPY client client
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /client ./client \
 && pip --python /opt/sightread/bin/python install --no-deps --no-index --root /project /client/*.whl


# TensorFlow's and TensorFlow Serving's messages: of 2 GB of packages the gateway needs only these modules.
FROM python AS messages
COPY requirements/all.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    awk '/^[^ ]/ { kept = /^tensorflow(-serving-api)?==/ } kept' all.lock > tensorflow.lock \
 && pip download --no-deps --require-hashes --requirement tensorflow.lock --dest wheels \
 && python -c 'import glob, re, zipfile; \
        wheels = [zipfile.ZipFile(path) for path in glob.glob("wheels/*.whl")]; \
        [wheel.extract(name, "/messages") for wheel in wheels for name in wheel.namelist() \
         if re.fullmatch(r"tensorflow(_serving)?/.*_pb2(_grpc)?\.py", name)]' \
 && rm -r wheels \
 && python -m compileall -q /messages


FROM python AS gateway-packages
# anything, such as true: with what --traces-endpoint needs
ARG TRACING=
RUN python -m venv --without-pip /opt/sightread
COPY requirements/gateway.lock ./
COPY requirements/tracing.lock ./
# --no-deps: the locks are all there is, and leave out what tokenizers would download with
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/sightread/bin/python install --no-deps --require-hashes \
        --requirement gateway.lock ${TRACING:+--requirement tracing.lock}


FROM python:3.11-slim-bookworm AS gateway
COPY --from=messages /messages /opt/sightread/lib/python3.11/site-packages
COPY --from=gateway-packages /opt/sightread /opt/sightread
COPY --from=project /project/opt/sightread /opt/sightread
# nothing is written beside the code: the root may be read-only
ENV PATH=/opt/sightread/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    SIGHTREAD_HOST=0.0.0.0 SIGHTREAD_LOG_FORMAT=json
WORKDIR /tmp
# a number: Kubernetes cannot tell whether a name is root
USER 10001:10001
EXPOSE 8080
# after all that is copied: a new version is no reason to copy it again
LABEL org.opencontainers.image.title="Sightread gateway" \
      org.opencontainers.image.description="Answers POST /classify-image and /classify-text, before a TensorFlow Serving" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
# whether the process answers; whether it is ready is what load balancers ask /readyz. Not by urllib: it would ask a proxy.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import http.client, os; \
asked = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('SIGHTREAD_PORT', 8080)), timeout=4); \
asked.request('GET', '/livez'); raise SystemExit(asked.getresponse().status != 200)"]
# no shell between: the gateway is process 1 and gets SIGTERM itself
ENTRYPOINT ["sightread"]
CMD ["serve"]


FROM python AS training-packages
ARG DEVICE
RUN python -m venv --without-pip /opt/sightread
COPY requirements/training-${DEVICE}.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/sightread/bin/python install --require-hashes --requirement training-${DEVICE}.lock


FROM python:3.11-slim-bookworm AS training
COPY --from=training-packages /opt/sightread /opt/sightread
COPY --from=training-project /project/opt/sightread /opt/sightread
# what libraries cache for a user goes where a container may write
ENV PATH=/opt/sightread/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /tmp
USER 10001:10001
LABEL org.opencontainers.image.title="Sightread training" \
      org.opencontainers.image.description="Trains the CNN and the LSTM and publishes them into a model repository" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
ENTRYPOINT ["sightread"]
CMD ["train", "--help"]


FROM tensorflow/serving:2.20.0 AS tensorflow-serving-cpu
FROM tensorflow/serving:2.20.0-gpu AS tensorflow-serving-gpu

# Only files are added: whatever TensorFlow Serving does, it does as its makers built it.
FROM tensorflow-serving-${DEVICE} AS model-server
COPY k8s/base/model-server/batching.config k8s/base/model-server/monitoring.config /etc/model-server/
COPY k8s/base/model-server/models.config /etc/model-server/models/
COPY models /models
USER 10001:10001
EXPOSE 8500 8501
LABEL org.opencontainers.image.title="Sightread model server" \
      org.opencontainers.image.description="TensorFlow Serving with the pretrained CNN and LSTM" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
# the image's own entrypoint is a shell that stays process 1
ENTRYPOINT ["/usr/bin/tensorflow_model_server"]
# models.config is polled: a label moves without a restart; its labels may name versions that are still loading.
# No retries: a broken version would stay LOADING for minutes and hold newer ones up.
# The threads are more than the calls that all gateways have in flight; the default, 4 for each core, refuses the rest.
# A connection ends after half a minute, and whoever held it asks DNS again: so new replicas get their share.
CMD ["--port=8500", \
     "--rest_api_port=8501", \
     "--model_config_file=/etc/model-server/models/models.config", \
     "--model_config_file_poll_wait_seconds=10", \
     "--allow_version_labels_for_unavailable_models=true", \
     "--max_num_load_retries=0", \
     "--enable_batching=true", \
     "--batching_parameters_file=/etc/model-server/batching.config", \
     "--monitoring_config_file=/etc/model-server/monitoring.config", \
     "--grpc_max_threads=64", \
     "--grpc_channel_arguments=grpc.max_connection_age_ms=30000,grpc.max_connection_age_grace_ms=15000"]
