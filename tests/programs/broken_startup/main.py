"""A program whose startup hook fails."""

from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    raise RuntimeError("the database is not there")
    yield


app = FastAPI(lifespan=lifespan)
