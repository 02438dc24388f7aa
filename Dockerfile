# One image for every role: SuperLink, server, device, and the command that submits a run.
#
#   docker build -t feddac .
#   docker build -t feddac --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .   # with CUDA

ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/feddac/bin:$PATH
RUN python -m venv /opt/feddac
RUN pip install --index-url "$TORCH_INDEX" "torch>=2.11" "torchvision>=0.26"
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY common/ common/
COPY dac/ dac/
COPY server/ server/
COPY client/ client/
COPY simulation/ simulation/
COPY feddac/ feddac/
RUN pip install .

FROM python:${PYTHON_VERSION}-slim
COPY --from=build /opt/feddac /opt/feddac
ENV PATH=/opt/feddac/bin:$PATH PYTHONUNBUFFERED=1 HOME=/home/feddac FLWR_HOME=/home/feddac/flower XDG_CACHE_HOME=/data
ENV FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
ENV MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=2147483648
# Writable for whichever user the container is given, so that files in mounted folders belong to their owner outside.
RUN useradd --uid 1000 --no-create-home --home-dir /home/feddac feddac \
    && install --directory --mode 1777 /home/feddac /data /state /runs
USER 1000:1000
# Not a folder with code: Flower's processes import from where they are started.
WORKDIR /home/feddac
CMD ["feddac", "--help"]
