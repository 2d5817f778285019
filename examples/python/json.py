# A JSON transform (cpp/json.cc says which).
import json
import math
import sys
from collections import Counter

COUNT_MAX = 10**9


def fail(why):
    print(f"json: {why}", file=sys.stderr)
    sys.exit(1)


def is_number(value):
    return type(value) in (int, float) and math.isfinite(value)


def is_item(item):
    return (
        isinstance(item, dict)
        and isinstance(item.get("article"), str)
        and is_number(item.get("price"))
        and is_number(item.get("count"))
        and 0 <= item["count"] <= COUNT_MAX
        and item["count"] == int(item["count"])
    )


def in_cents(amount):
    return math.floor(amount * 100 + 0.5) / 100


def main():
    try:
        orders = json.loads(sys.stdin.buffer.read().decode(), parse_constant=lambda name: fail("the input is not JSON"))
    except (ValueError, RecursionError):
        fail("the input is not JSON")
    if not isinstance(orders, list):
        fail("the input is not a list of orders")
    customers = {}
    for index, order in enumerate(orders):
        if not isinstance(order, dict) or not isinstance(order.get("customer"), str):
            fail(f"order {index} has no customer")
        if not isinstance(order.get("items"), list):
            fail(f"order {index} has no list of items")
        new = {"orders": 0, "pieces": 0, "total": 0.0, "articles": Counter()}
        summary = customers.setdefault(order["customer"], new)
        summary["orders"] += 1
        for item in order["items"]:
            if not is_item(item):
                fail(f"order {index} has an item without article, price or count")
            count = int(item["count"])
            summary["pieces"] += count
            summary["total"] += float(item["price"]) * count
            summary["articles"][item["article"]] += count

    result, total = [], 0.0
    for name, summary in sorted(customers.items(), key=lambda entry: (-entry[1]["total"], entry[0])):
        customer = {"customer": name}
        if summary["articles"]:
            customer["favourite"] = min(summary["articles"].items(), key=lambda entry: (-entry[1], entry[0]))[0]
        customer |= {"orders": summary["orders"], "pieces": summary["pieces"], "total": in_cents(summary["total"])}
        result.append(customer)
        total += summary["total"]
    text = json.dumps({"customers": result, "total": in_cents(total)}, indent=2, ensure_ascii=False)
    sys.stdout.buffer.write(text.encode() + b"\n")


main()
