#include <doctest/doctest.h>

#include "json.h"
#include "python_repr.h"

using janus::Json;
using janus::python_repr;

TEST_CASE("values as Python writes them") {
    CHECK(python_repr(Json::parse(R"({"b": [1, -2, 2.5, 1e20, true, null], "a": "it's"})")) ==
          R"({'b': [1, -2, 2.5, 1e+20, True, None], 'a': "it's"})");
    CHECK(python_repr(Json::parse(R"(["\n\u200b\\é", 1e-7, 100000.0, 18446744073709551615])")) ==
          R"(['\n\u200b\\é', 1e-07, 100000.0, 18446744073709551615])");
}

TEST_CASE("of equal keys the last value stands in the first place") {
    CHECK(python_repr(Json::parse(R"({"a": 1, "b": 2, "a": 3, "c": 4, "b": [5]})")) == "{'a': 3, 'b': [5], 'c': 4}");
}

TEST_CASE("what is no JSON") {
    for (const std::string text : {"", "{", "[1,]", "nan", "{\"a\" 1}", "[1] 2", "\"\xff\"", "01"})
        CHECK_THROWS_AS(Json::parse(text), Json::exception);
    CHECK_THROWS_AS(Json::parse(std::string(100'000, '[')), Json::exception);
    CHECK_NOTHROW(Json::parse(std::string(200, '[') + std::string(200, ']')));
}

TEST_CASE("a value of another type, a member that is not there") {
    const Json value = Json::parse(R"({"a": "b"})");
    CHECK_THROWS_AS(value.at("c"), Json::exception);
    CHECK_THROWS_AS(value.array(), Json::exception);
    CHECK_THROWS_AS(value.at("a").number(), Json::exception);
    CHECK(value.find("c") == nullptr);
}
