# Images of the service for CPUs (--target cpu, the default) and for NVIDIA GPUs (--target gpu), and of the proxy in
# front of several instances (--target proxy).
#
#   docker build --target cpu -t wholetrack .
#
# Python packages are pinned with hashes and installed before the code is copied, so that a code change rebuilds only the
# layers with the code.
#
# Debian packages are not pinned: builds get the current versions with their security patches.
# hadolint global ignore=DL3008
ARG PYTHON_VERSION=3.12


# The configure options for the formats and codecs that the service accepts. They have a stage of their own, so that
# ffmpeg is rebuilt only if they change.
FROM python:${PYTHON_VERSION}-slim AS ffmpeg-options
WORKDIR /build
COPY service/wholetrack/__init__.py service/wholetrack/errors.py wholetrack/
COPY service/wholetrack/decoding/__init__.py service/wholetrack/decoding/ffmpeg.py wholetrack/decoding/
COPY docker/ffmpeg_options.py .
RUN PYTHONPATH=. python ffmpeg_options.py > options


# ffmpeg from Debian's source package, with Debian's security patches and only the components that the service uses.
FROM python:${PYTHON_VERSION}-slim AS ffmpeg
WORKDIR /build
RUN sed -i 's/^Types: deb$/Types: deb deb-src/' /etc/apt/sources.list.d/debian.sources \
    && apt-get update \
    && apt-get install -y --no-install-recommends dpkg-dev gcc libc6-dev libsoxr-dev make nasm pkg-config xz-utils zlib1g-dev \
    && apt-get source ffmpeg \
    && mv ffmpeg-*/ source
COPY --from=ffmpeg-options /build/options .
# Word splitting of the options is intended.
# hadolint ignore=DL3003,SC2046
RUN version=$(dpkg-parsechangelog --file source/debian/changelog --show-field Version) \
    && cd source \
    && if [ -d libpostproc ]; then echo --disable-postproc >> ../options; fi \
    && ./configure --prefix=/opt/ffmpeg --extra-version="${version#*-}" $(cat ../options) \
    && make -j"$(nproc)" ffmpeg \
    && install -D --strip ffmpeg /opt/ffmpeg/bin/ffmpeg \
    && install -D --mode=644 debian/copyright /opt/ffmpeg/copyright


FROM python:${PYTHON_VERSION}-slim AS system
# The sandbox of decoders needs libseccomp, and ffmpeg resamples with libsoxr.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libseccomp2 libsoxr0 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/cache/ldconfig /var/log/apt /var/log/dpkg.log
COPY --from=ffmpeg /opt/ffmpeg /opt/ffmpeg
ENV PATH=/opt/wholetrack/bin:/opt/ffmpeg/bin:$PATH PYTHONUNBUFFERED=1


FROM system AS tools
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements/build.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip pip install --require-hashes -r requirements/build.txt
# Without pip, so that nothing can be installed in a running container.
RUN python -m venv --without-pip /opt/wholetrack


# imageio-ffmpeg is removed because the image has its own ffmpeg.
FROM tools AS packages-cpu
COPY requirements/service-cpu.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/wholetrack/bin/python install --only-binary :all: --require-hashes -r requirements/service-cpu.txt \
    && pip --python /opt/wholetrack/bin/python uninstall --yes imageio-ffmpeg


# CUDA and cuDNN come from the Python packages that onnxruntime-gpu depends on. A CUDA base image would add about a
# gigabyte that the service does not use.
FROM tools AS packages-gpu
COPY requirements/service-gpu.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/wholetrack/bin/python install --only-binary :all: --require-hashes -r requirements/service-gpu.txt \
    && pip --python /opt/wholetrack/bin/python uninstall --yes imageio-ffmpeg


FROM tools AS code
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY service service
COPY models/wholetrack-crnn models/wholetrack-crnn
COPY models/wholetrack-crnn-gtzan models/wholetrack-crnn-gtzan
RUN pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/wholetrack/bin/python install --no-cache-dir --no-deps --no-index --target /opt/app /wheels/*.whl
# The wheel contains the default bundle only. The others are copied next to it, where the service looks for built-in
# bundles. WHOLETRACK_MODELS_DIR stays free for a folder with further bundles.
COPY models /opt/app/wholetrack/models


FROM system AS service
ARG VERSION=0 REVISION=unknown
LABEL org.opencontainers.image.title="wholetrack" \
      org.opencontainers.image.description="A REST service that predicts the music genre of a whole recording, window by window and overall." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/app/bin:$PATH PYTHONPATH=/opt/app PYTHONDONTWRITEBYTECODE=1 \
    WHOLETRACK_HOST=0.0.0.0 WHOLETRACK_PROBE_PORT=8081
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
# For health probes only. Publish it to supervisors, not to clients.
EXPOSE 8081
# Python runs as PID 1 without an init process: it handles SIGTERM itself, and collects the exit statuses of its child
# processes and of orphans.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s CMD ["python", "-m", "wholetrack.healthcheck"]
ENTRYPOINT ["wholetrack"]
CMD ["serve"]


FROM debian:bookworm-slim AS proxy
RUN apt-get update \
    && apt-get install -y --no-install-recommends haproxy \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/cache/ldconfig /var/log/apt /var/log/dpkg.log
COPY docker/haproxy.cfg /etc/haproxy/haproxy.cfg
RUN haproxy -c -f /etc/haproxy/haproxy.cfg
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8000"]
ENTRYPOINT ["haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg"]


FROM service AS gpu
COPY --from=packages-gpu /opt/wholetrack /opt/wholetrack
COPY --from=code /opt/app /opt/app
# The build fails unless every bundle reproduces its golden output. It runs on the CPU, as builds have no GPU.
RUN WHOLETRACK_DEVICE=cpu wholetrack models


FROM service AS cpu
COPY --from=packages-cpu /opt/wholetrack /opt/wholetrack
COPY --from=code /opt/app /opt/app
RUN wholetrack models
