# Trains on CPUs, into runs/ of the working directory: docker build --tag twohot . && mkdir -p runs
# docker run --user "$(id -u):$(id -g)" --volume "$PWD/runs:/home/twohot/runs" twohot train quickstart
FROM python:3.12-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml CMakeLists.txt README.md LICENSE ./
COPY licenses licenses
COPY csrc csrc
COPY python python
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim-bookworm
# Of torch without CUDA: --build-arg TORCH_INDEX=... names PyTorch's index of CPU builds.
ARG TORCH_INDEX=""
COPY --from=build /wheels /wheels
RUN PIP_EXTRA_INDEX_URL="$TORCH_INDEX" python -m pip install --no-cache-dir "$(ls /wheels/*.whl)[train,popgym]"
RUN useradd --create-home twohot
USER twohot
WORKDIR /home/twohot
ENTRYPOINT ["twohot"]
CMD ["--help"]
