# Two stages: the first has the compiler, the second only what runs. Build: docker build -t perimeter .
# Run:   docker run --rm -p 127.0.0.1:8000:8000 perimeter
# There are no keys yet: publish the port on loopback only, as above.

FROM python:3.12-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*
# The image may run on another machine than the one that builds it: no -march=native, but the level below.
ARG X86_FLAGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON"
ENV CMAKE_ARGS=${X86_FLAGS} PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 VIRTUAL_ENV=/opt/perimeter \
    PATH=/opt/perimeter/bin:$PATH
RUN python -m venv $VIRTUAL_ENV
WORKDIR /src
COPY locks locks
RUN pip install --require-hashes -r locks/build.lock \
    && pip install --no-build-isolation --require-hashes -r locks/base.lock
COPY pyproject.toml README.md LICENSE models.toml ./
COPY serving serving
RUN pip install --no-build-isolation --no-deps .

FROM python:3.12-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* \
    && useradd --system --create-home --uid 10001 perimeter
COPY --from=build /opt/perimeter /opt/perimeter
ENV PATH=/opt/perimeter/bin:$PATH
USER perimeter
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=2)"]
# Inside the container every address is reached through the published port, which is where access is decided.
ENTRYPOINT ["serve", "--host", "0.0.0.0", "--allow-insecure-bind"]
CMD ["--model", "demo"]
