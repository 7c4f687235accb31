# The program in a container, without a GPU and with one (NVIDIA's container toolkit has to be there):
#   docker build -t bench .
#   docker run --rm -v "$PWD/results:/work/results" bench run
#   docker build -t bench:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
#   docker run --rm --gpus all -v "$PWD/results:/work/results" -v "$HOME/.cache:/home/bench/.cache" bench:cuda run --model sd14
FROM python:3.11-slim-bookworm
ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# hadolint ignore=DL3013 # the argument has the version
RUN pip install --no-cache-dir "$TORCH" --index-url "$TORCH_INDEX"
COPY . /tmp/bench
RUN pip install --no-cache-dir "/tmp/bench[ocr]" -c /tmp/bench/constraints.txt \
    && rm -rf /tmp/bench \
    && useradd --uid 1000 --create-home bench \
    && install -d -o bench /work/results
USER 1000
WORKDIR /work
ENTRYPOINT ["bench"]
CMD ["--help"]
