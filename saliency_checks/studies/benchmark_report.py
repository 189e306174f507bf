def arguments(p):
    pass


def report(o, store):
    store.save("scores.parquet", store.table())
