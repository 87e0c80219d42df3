%% SPDX-License-Identifier: Apache-2.0
%% @doc Stubs of native/tokamak_test_nif: producers on native threads, raw descriptors.
-module(tokamak_test_nif).

-export([start_producers/6, producers/0, reserve_ids/3, start_storm/4, storm/0]).
-export([pipe/0, datagrams/0, flags/1, write/2, close/1, start_echo/3]).
-export([name_of_two/0]).

-on_load(load/0).

-define(STUB, erlang:nif_error(not_loaded)).

%% Where the build puts it: see tokamak_bench_nif.
-spec load() -> ok | {error, term()}.
load() ->
    Dir = os:getenv(
        "TOKAMAK_BENCH_NIF_DIR",
        filename:join([code:lib_dir(tokamak), "..", "..", "..", "native"])
    ),
    erlang:load_nif(filename:join(Dir, "tokamak_test_nif"), 0).

%% @doc Starts threads. Thread N (from 0) pushes 0 to `Each' - 1 as `user' events of `FirstId' + N, and
%% waits up to `WaitMilliseconds' for room each time.
-spec start_producers(
    Table :: reference(),
    tokamak_loop:loop(),
    Threads :: pos_integer(),
    Each :: pos_integer(),
    FirstId :: pos_integer(),
    WaitMilliseconds :: non_neg_integer()
) -> ok | badarg.
start_producers(_Table, _Loop, _Threads, _Each, _FirstId, _WaitMilliseconds) -> ?STUB.

%% @doc How many of these threads run; how many ended early since the last call, and why.
-spec producers() -> #{running | refused | closed | failed => non_neg_integer()}.
producers() -> ?STUB.

%% @doc Reserves `Blocks' blocks of `Count' callback ids through the C table: their first ids.
-spec reserve_ids(Table :: reference(), Blocks :: pos_integer(), Count :: pos_integer()) ->
    [non_neg_integer()] | badarg.
reserve_ids(_Table, _Blocks, _Count) -> ?STUB.

%% @doc A pipe whose ends block.
-spec pipe() -> {ReadEnd :: integer(), WriteEnd :: integer()} | error.
pipe() -> ?STUB.

%% @doc Two ends of a pair of datagram sockets.
-spec datagrams() -> {integer(), integer()} | error.
datagrams() -> ?STUB.

%% @doc The status flags of one of these descriptors.
-spec flags(integer()) -> integer().
flags(_Number) -> ?STUB.

%% @doc Writes to one of these descriptors, as foreign code would.
-spec write(integer(), binary()) -> integer().
write(_Number, _Data) -> ?STUB.

%% @doc Closes one of these descriptors.
-spec close(integer()) -> ok | error.
close(_Number) -> ?STUB.

%% @doc Starts a thread that takes two of these descriptors and writes to the second what it reads from the
%% first, `Delay' microseconds later, until the end of it.
-spec start_echo(From :: integer(), To :: integer(), Delay :: non_neg_integer()) -> ok | error.
start_echo(_From, _To, _Delay) -> ?STUB.

%% @doc Starts threads that report the progress of the keys from 1 to `Keys', through the C table.
-spec start_storm(Table :: reference(), Threads :: pos_integer(), Keys :: pos_integer(), Milliseconds :: pos_integer()) ->
    ok | badarg.
start_storm(_Table, _Threads, _Keys, _Milliseconds) -> ?STUB.

%% @doc The threads that have not ended, and the reports of all.
-spec storm() -> {Threads :: non_neg_integer(), Reports :: non_neg_integer()}.
storm() -> ?STUB.

%% @doc The name that two operations of this library have; `nil': none.
-spec name_of_two() -> binary() | nil.
name_of_two() -> ?STUB.
