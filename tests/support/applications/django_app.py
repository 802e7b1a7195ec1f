"""Django, whose `get_asgi_application` knows neither lifespan nor WebSockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="of a test",
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
)

done = asyncio.Event()


def hello(request: HttpRequest) -> HttpResponse:
    # In a thread, like all views that are not coroutines.
    return HttpResponse("hello from the lifespan", content_type="text/plain")


async def query(request: HttpRequest, name: str) -> HttpResponse:
    return JsonResponse({"q": request.GET.getlist("q"), "path": request.path})


def form(request: HttpRequest) -> HttpResponse:
    upload = request.FILES["file"]
    assert not isinstance(upload, list)
    return JsonResponse(
        {"name": request.POST["name"], "file": upload.name, "size": len(upload.read())}
    )


async def count(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"size": len(request.body)})


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[str]:
        for number in range(5):
            yield f"piece {number}\n"
            await asyncio.sleep(0)

    return StreamingHttpResponse(pieces(), content_type="text/plain")


async def cookie(request: HttpRequest) -> HttpResponse:
    response = HttpResponse(request.COOKIES.get("seen", "never"), content_type="text/plain")
    response.set_cookie("seen", "once", httponly=True)
    response.set_cookie("other", "two")
    return response


async def redirect(request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect("/hello")


async def fail(request: HttpRequest) -> HttpResponse:
    return HttpResponse("short and stout", status=418)


async def crash(request: HttpRequest) -> HttpResponse:
    raise ZeroDivisionError


async def late(request: HttpRequest) -> HttpResponse:
    asyncio.get_running_loop().call_soon(done.set)
    return HttpResponse("soon", content_type="text/plain")


async def finished(request: HttpRequest) -> HttpResponse:
    await asyncio.wait_for(done.wait(), 10)
    return HttpResponse("done", content_type="text/plain")


async def nothing(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=204)


async def large(request: HttpRequest) -> HttpResponse:
    return HttpResponse("x" * 1_000_000, content_type="text/plain")


urlpatterns = [
    path("hello", hello),
    path("query/<name>", query),
    path("form", form),
    path("count", count),
    path("stream", stream),
    path("cookie", cookie),
    path("redirect", redirect),
    path("fail", fail),
    path("crash", crash),
    path("late", late),
    path("finished", finished),
    path("nothing", nothing),
    path("large", large),
]

app = get_asgi_application()
