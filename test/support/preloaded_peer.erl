%% SPDX-License-Identifier: Apache-2.0
%% VMs of their own with a library of test/support preloaded, which shares numbers with the test by a file.
-module(preloaded_peer).

-export([with/4, set/3, get/2]).

-define(BYTES, 8).

%% @doc Calls `Fun(Peer, File)' with a VM that has the library preloaded and knows the file, of that many zeroes, by the
%% environment variable.
with(Library, Variable, Numbers, Fun) ->
    tokamak_test:with_directory(fun(Directory) ->
        File = filename:join(Directory, "numbers"),
        ok = file:write_file(File, binary:copy(<<0>>, Numbers * ?BYTES)),
        Peer = tokamak_test:start_peer(#{env => [{"LD_PRELOAD", path(Library)}, {Variable, File}]}),
        Fun(Peer, File),
        ok = peer:stop(Peer)
    end).

%% Where tokamak_bench_nif is, too.
path(Library) ->
    Native = filename:join([code:lib_dir(tokamak), "..", "..", "..", "native"]),
    filename:join(os:getenv("TOKAMAK_BENCH_NIF_DIR", Native), Library).

%% @doc Sets a number of the file: in place, as it is mapped.
set(File, Index, Number) ->
    {ok, Device} = file:open(File, [read, write, raw]),
    ok = file:pwrite(Device, Index * ?BYTES, <<Number:64/native-signed>>),
    ok = file:close(Device).

%% @doc A number of the file.
get(File, Index) ->
    {ok, Device} = file:open(File, [read, raw, binary]),
    {ok, <<Number:64/native-signed>>} = file:pread(Device, Index * ?BYTES, ?BYTES),
    ok = file:close(Device),
    Number.
