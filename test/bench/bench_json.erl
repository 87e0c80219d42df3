%% SPDX-License-Identifier: Apache-2.0
%% @doc Writes JSON: OTP has a module for it from version 27 on only.
-module(bench_json).

-export([encode/1]).
-export_type([value/0]).

-type value() :: #{atom() | binary() => value()} | [value()] | binary() | atom() | number().
%% Lists are arrays; strings have to be binaries.

-spec encode(value()) -> iodata().
encode(Map) when is_map(Map) ->
    Members = [[encode_key(Key), ": ", encode(Value)] || {Key, Value} <- lists:sort(maps:to_list(Map))],
    ["{", lists:join(", ", Members), "}"];
encode(List) when is_list(List) ->
    ["[", lists:join(", ", [encode(Item) || Item <- List]), "]"];
encode(Atom) when Atom =:= true; Atom =:= false; Atom =:= null ->
    atom_to_binary(Atom);
encode(Atom) when is_atom(Atom) ->
    encode(atom_to_binary(Atom));
encode(Integer) when is_integer(Integer) ->
    integer_to_binary(Integer);
encode(Float) when is_float(Float) ->
    float_to_binary(Float, [{decimals, 3}, compact]);
encode(String) when is_binary(String) ->
    ["\"", [escape(Char) || Char <- unicode:characters_to_list(String)], "\""].

encode_key(Key) when is_atom(Key) -> encode(atom_to_binary(Key));
encode_key(Key) when is_binary(Key) -> encode(Key).

escape($") -> "\\\"";
escape($\\) -> "\\\\";
escape(Char) when Char < 32 -> io_lib:format("\\u~4.16.0b", [Char]);
escape(Char) -> unicode:characters_to_binary([Char]).
