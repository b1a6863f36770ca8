#!/usr/bin/env python3
"""
Fetch pages with httpx, some at a time.

Shows: httpx, which stands on anyio, on uringio's loop.

    python examples/asyncio/httpx_fetch.py URL...
"""

import argparse
import asyncio

import httpx

import uringio.aio


async def fetch(client: httpx.AsyncClient, url: str, room: asyncio.Semaphore) -> str:
    async with room:
        response = await client.get(url)
    return f"{response.status_code} {len(response.content)} {url}"


async def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch pages, sixteen at a time.")
    parser.add_argument("urls", nargs="+", metavar="URL")
    options = parser.parse_args()
    room = asyncio.Semaphore(16)
    async with httpx.AsyncClient() as client, asyncio.TaskGroup() as group:
        tasks = [group.create_task(fetch(client, url, room)) for url in options.urls]
    for task in tasks:
        print(task.result())


if __name__ == "__main__":
    uringio.aio.run(main())
