# The server and its models alone: no training code, no torch, no pip.
#   docker build -t posewright . && docker run --rm -p 8000:8000 posewright
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY service service
COPY clients/browser/src clients/browser/src
# Without training/ here the wheel has no such package; the commands that need more than the runtime are removed.
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m venv --without-pip /venv \
    && pip --python /venv/bin/python install --no-cache-dir --constraint constraints.txt /wheels/posewright-*.whl \
    && rm /venv/bin/posewright-train /venv/bin/posewright-serve-cluster \
    && find /venv -type d -name tests -prune -exec rm -r {} + # of other packages, a twentieth of the image

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home posewright
COPY --from=build /venv /venv
USER 10001
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 POSEWRIGHT_HOST=0.0.0.0
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('POSEWRIGHT_PORT', '8000')}/readyz\", timeout=2)"]
ENTRYPOINT ["posewright-serve"]
