# leanmatch serve in a small image: no torch, no compiler, not root.
#   docker build -t leanmatch .
#   docker run --rm -p 127.0.0.1:8080:8080 -v ./catalogue:/catalogue:ro -v ./model:/model:ro leanmatch
# The model must be one that leanmatch's own runtime runs (leanmatch compress, leanmatch train, stock BERT-like folders).

FROM python:3.12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml CMakeLists.txt README.md LICENSE ./
COPY csrc csrc
COPY src src
RUN pip wheel --no-cache-dir --wheel-dir /wheels ".[serve]"

FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home leanmatch
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-index --find-links /wheels "leanmatch[serve]" && rm -rf /wheels
USER 10001
ENV PYTHONUNBUFFERED=1
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/health', timeout=2)"]
# Inside a container the network is the container's own; what is published is decided by `docker run -p`.
ENTRYPOINT ["leanmatch", "serve"]
CMD ["/catalogue", "--model", "/model", "--host", "0.0.0.0", "--port", "8080"]
