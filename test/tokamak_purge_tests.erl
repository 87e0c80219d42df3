%% SPDX-License-Identifier: Apache-2.0
%% Code that is deleted, purged and loaded again while it is used; libraries that are not what they should be.
-module(tokamak_purge_tests).

-include_lib("eunit/include/eunit.hrl").

-export([purge_under_load/1, load_again/0, is_mapped/1, start/0, echo/0, purge_all/0]).
%% Of an error handler.
-export([undefined_function/3, undefined_lambda/3]).

-import(tokamak_test, [quietly/1, with_directory/1]).

-define(ROUNDS, 20).

purge_test_() ->
    tokamak_test:cases(120, [
        {"the library is not loaded over itself, and serves on", fun not_loaded_twice/0},
        {"modules with libraries are deleted, purged and loaded under load, and nothing crashes", fun purges/0},
        {"libraries stay in memory when their modules are purged", fun stay_in_memory/0},
        {"two versions of the library serve one VM, one after the other", fun two_versions/0},
        {"a library that was replaced under a running VM is refused", fun replaced/0},
        {"an application whose library is missing, stale or broken does not start and says why", fun broken/0}
    ]).

in_peer(Function, Args) ->
    Peer = tokamak_test:start_peer(),
    try
        peer:call(Peer, ?MODULE, Function, Args, 110_000)
    after
        peer:stop(Peer)
    end.

not_loaded_twice() ->
    ?assertEqual([{error, on_load_failure}, {error, on_load_failure}], in_peer(load_again, [])).

load_again() ->
    ok = start(),
    {ok, _} = tokamak:call(call_fixture:op(later), [x, 0]),
    Results = quietly(fun() -> [code:load_file(Module) || Module <- [tokamak_nif, tokamak_test_engine]] end),
    ok = echo(),
    Results.

start() ->
    quietly(fun() ->
        case application:ensure_all_started(tokamak) of
            {ok, _} -> ok;
            Error -> Error
        end
    end).

echo() ->
    {ok, x} = tokamak:call(echo, [x]),
    ok.

%%% Purging

purges() ->
    Uses = in_peer(purge_under_load, [?ROUNDS]),
    ?assertEqual([], [Part || {Part, {0, _}} <- maps:to_list(Uses)]).

%% @doc So many times; afterwards the application starts and works as ever.
purge_under_load(Rounds) ->
    quietly(fun() ->
        _ = application:load(tokamak),
        ok = application:set_env(tokamak, drain_timeout, 20),
        ok = start(),
        Users = [spawn(fun() -> use_whatever_happens(Part) end) || Part <- tokamak_load:parts()],
        tokamak_test:repeat(Rounds, fun() -> purge(lists:nth(rand:uniform(2), [tokamak_nif, tokamak_test_engine])) end),
        lists:foreach(fun tokamak_test:kill/1, Users),
        %% It may have given up.
        _ = application:stop(tokamak),
        ok = start(),
        Load = tokamak_load:start(),
        ok = tokamak_load:wait_until_used(Load),
        tokamak_load:stop(Load)
    end).

purge(Module) ->
    _ = application:ensure_all_started(tokamak),
    receive
    after rand:uniform(20) -> ok
    end,
    _ = code:delete(Module),
    _ = code:purge(Module),
    {module, Module} = code:ensure_loaded(Module).

%% Its processes are killed where they are in a module that is purged, and what they hold is of no use then.
use_whatever_happens(Part) ->
    {User, Monitor} = spawn_monitor(fun() ->
        _ = process_flag(error_handler, ?MODULE),
        tokamak_load:use(Part)
    end),
    receive
        {'DOWN', Monitor, process, User, _} -> ok
    after 200 ->
        exit(User, kill)
    end,
    use_whatever_happens(Part).

%% Whoever finds a module gone does not load it: OTP 25 reads a null pointer in erts_load_nif where a module is
%% purged while another process loads it.
undefined_function(Module, _Function, _Args) when Module =:= tokamak_nif; Module =:= tokamak_test_engine ->
    exit({purged, Module});
undefined_function(Module, Function, Args) ->
    error_handler:undefined_function(Module, Function, Args).

undefined_lambda(Module, Fun, Args) ->
    error_handler:undefined_lambda(Module, Fun, Args).

stay_in_memory() ->
    ?assertEqual([true, true], in_peer(purge_all, [])).

%% @doc Without any process or resource that could hold them.
purge_all() ->
    Modules = [tokamak_nif, tokamak_test_engine],
    [
        begin
            {module, Module} = code:ensure_loaded(Module),
            true = code:delete(Module),
            false = code:purge(Module),
            is_mapped(atom_to_list(Module) ++ ".so")
        end
     || Module <- Modules
    ].

%% @doc Whether a file is mapped into this VM.
is_mapped(Name) ->
    {ok, Maps} = file:read_file("/proc/self/maps"),
    binary:match(Maps, unicode:characters_to_binary(Name)) =/= nomatch.

%%% Files

%% A copy of the library in a directory.
install(Directory) ->
    Source = filename:dirname(filename:dirname(code:which(tokamak))),
    lists:foreach(
        fun(Part) ->
            ok = filelib:ensure_dir(filename:join([Directory, Part, "x"])),
            [
                {ok, _} = file:copy(File, filename:join([Directory, Part, filename:basename(File)]))
             || File <- filelib:wildcard(filename:join([Source, Part, "*"]))
            ]
        end,
        ["ebin", "priv"]
    ),
    ok = file:change_mode(filename:join([Directory, "priv", "tokamak_spawner"]), 8#755),
    filename:join(Directory, "ebin").

library(Directory) ->
    filename:join([Directory, "priv", "tokamak_nif.so"]).

%% A VM with such a copy, and this module.
with_copy(Test) ->
    with_directory(fun(Directory) ->
        Ebin = install(Directory),
        Peer = tokamak_test:start_peer([Ebin | support()]),
        try
            Test(Directory, Peer)
        after
            peer:stop(Peer)
        end
    end).

support() ->
    lists:usort([filename:dirname(code:which(Module)) || Module <- [?MODULE, tokamak_test]]).

two_versions() ->
    with_copy(fun(Old, Peer) ->
        ok = peer:call(Peer, ?MODULE, start, []),
        ok = peer:call(Peer, ?MODULE, echo, []),
        with_directory(fun(New) ->
            Ebin = install(New),
            ok = peer:call(Peer, application, stop, [tokamak]),
            true = peer:call(Peer, code, add_patha, [Ebin]),
            {ok, Modules} = peer:call(Peer, application, get_key, [tokamak, modules]),
            [_ = peer:call(Peer, code, Function, [Module]) || Module <- Modules, Function <- [purge, delete, purge]],
            ok = peer:call(Peer, ?MODULE, start, []),
            ok = peer:call(Peer, ?MODULE, echo, []),
            ?assert(peer:call(Peer, ?MODULE, is_mapped, [library(New)])),
            ?assert(peer:call(Peer, ?MODULE, is_mapped, [library(Old)]))
        end)
    end).

%% The VM has the old file in memory, and the loader finds the new one on disk.
replaced() ->
    with_copy(fun(Directory, Peer) ->
        ok = peer:call(Peer, ?MODULE, start, []),
        ok = peer:call(Peer, application, stop, [tokamak]),
        {Old, New} = versions(),
        ok = replace(library(Directory), Old, New),
        ok = make_newer(filename:join([Directory, "ebin", "tokamak_nif.beam"])),
        [_ = peer:call(Peer, code, Function, [tokamak_nif]) || Function <- [purge, delete, purge]],
        {error, {tokamak, {{tokamak_nif, Text}, _}}} = peer:call(Peer, ?MODULE, start, []),
        ?assertMatch({match, _}, re:run(Text, "was replaced.*Start a new VM"))
    end).

%% The version that there is and another one, as the library has it in its file.
versions() ->
    Version = tokamak_nif:abi_version(),
    {marker(Version), marker(other(Version))}.

%% As many digits.
other(Version) when Version rem 10 =:= 9 -> Version - 1;
other(Version) -> Version + 1.

marker(Version) ->
    iolist_to_binary(["tokamak_abi_version=", integer_to_binary(Version)]).

%% As an installation does it: a new file under the old name.
replace(File, Old, New) ->
    {ok, Library} = file:read_file(File),
    write(File, binary:replace(Library, Old, New)).

write(File, Content) ->
    ok = file:write_file(File ++ ".new", Content),
    file:rename(File ++ ".new", File).

%% The module that belongs to it.
make_newer(Beam) ->
    {ok, {_, [{abstract_code, {raw_abstract_v1, Forms}}]}} = beam_lib:chunks(Beam, [abstract_code]),
    {ok, tokamak_nif, Newer} = compile:forms([newer(Form) || Form <- Forms]),
    write(Beam, Newer).

newer({function, _, Name, 0, _} = Form) when Name =:= load; Name =:= is_of_this_version ->
    Version = tokamak_nif:abi_version(),
    Newer = fun(Node) ->
        case erl_syntax:type(Node) =:= integer andalso erl_syntax:integer_value(Node) of
            Version -> erl_syntax:integer(other(Version));
            _ -> Node
        end
    end,
    erl_syntax:revert(erl_syntax_lib:map(Newer, Form));
newer(Form) ->
    Form.

broken() ->
    {Old, New} = versions(),
    HowToBuild = ".*rebar3 compile.*mix deps[.]compile.*cargo",
    Cases = [
        {fun(File) -> file:delete(File) end, "is missing"},
        {fun(File) -> replace(File, Old, New) end, "is stale: it has version [0-9]+, needed is [0-9]+"},
        {fun(File) -> write(File, <<"no library">>) end, "is not a library of tokamak"},
        {fun(File) -> write(File, <<"no library, but ", Old/binary, 0>>) end, "cannot be loaded: "},
        {fun for_another_machine/1, "cannot be loaded: "}
    ],
    [
        with_copy(fun(Directory, Peer) ->
            ok = Break(library(Directory)),
            {error, {tokamak, {{tokamak_nif, Text}, _}}} = peer:call(Peer, ?MODULE, start, []),
            ?assertMatch({match, _}, re:run(Text, "tokamak_nif[.]so " ++ What ++ HowToBuild))
        end)
     || {Break, What} <- Cases
    ].

%% e_machine of the ELF header: 8 is MIPS.
for_another_machine(File) ->
    {ok, <<Ident:16/binary, Type:16/bitstring, _:16, Rest/binary>>} = file:read_file(File),
    write(File, <<Ident/binary, Type/bitstring, 8:16/little, Rest/binary>>).
