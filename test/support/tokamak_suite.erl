%% SPDX-License-Identifier: Apache-2.0
%% @doc Runs all tests with nothing but an OTP and native libraries that are there already: compiles the
%% library and its tests into _build/suite/lib/tokamak of the working directory, as rebar3 does for its
%% profiles. Writes to _build/suite/summary how many passed, and to _build/suite/failed the modules that did not.
%% Those can be run once more, each in a VM of its own. See scripts/test-otp.sh.
-module(tokamak_suite).

-export([main/0, alone/1]).
-behaviour(eunit_listener).
-export([start/1, init/1, handle_begin/3, handle_end/3, handle_cancel/3, terminate/2]).

-define(APPLICATION, "_build/suite/lib/tokamak").
-define(SUMMARY, "_build/suite/summary").
-define(FAILED, "_build/suite/failed").

%% @doc Ends the VM, with 0 if all tests passed.
-spec main() -> no_return().
main() ->
    _ = [file:delete(File) || File <- [?SUMMARY, ?FAILED]],
    ok = arrange(),
    ok = write_app(compile("src/*.erl", "ebin")),
    _ = os:cmd("sh scripts/build-shell-docs.sh " ?APPLICATION),
    [_ | _] = compile("test/{support,bench}/*.erl", "test"),
    Results = [{Module, test(Module)} || Module <- compile("test/*_tests.erl", "test")],
    Failed = [Module || {Module, {Result, _}} <- Results, Result =/= ok],
    ok = summarize([Counts || {_, {_, Counts}} <- Results]),
    ok = file:write_file(?FAILED, [io_lib:format("~s~n", [Module]) || Module <- Failed]),
    halt(min(1, length(Failed))).

%% @doc Runs one module in this VM alone, and adds to the summary how that went. Ends the VM as main/0 does.
-spec alone([module(), ...]) -> no_return().
alone([Module]) ->
    ok = add_paths(),
    {Result, _} = test(Module),
    Word = case Result of ok -> "passed"; _ -> "failed again" end,
    ok = file:write_file(?SUMMARY, io_lib:format("; ~s alone: ~s", [Module, Word]), [append]),
    halt(case Result of ok -> 0; _ -> 1 end).

%% The result, and how many tests passed, failed and so on.
test(Module) ->
    Result = eunit:test(Module, [verbose, {report, {?MODULE, [{counts_to, self()}]}}]),
    receive
        {counts, Counts} -> {Result, Counts}
    end.

%% The directories that the application and its tests look for.
arrange() ->
    _ = file:del_dir_r(?APPLICATION),
    [ok = filelib:ensure_path(directory(Name)) || Name <- ["ebin", "test"]],
    [ok = file:make_symlink(filename:absname(Name), directory(Name)) || Name <- ["src", "include", "priv"]],
    add_paths().

add_paths() ->
    true = code:add_patha(directory("ebin")),
    true = code:add_patha(directory("test")),
    ok.

directory(Name) ->
    filename:absname(filename:join(?APPLICATION, Name)).

%% A newer compiler's warnings are shown, and fail nothing.
compile(Pattern, Directory) ->
    Options = [debug_info, report, {i, "include"}, {outdir, directory(Directory)}],
    Results = [{File, compile:file(File, Options)} || File <- filelib:wildcard(Pattern)],
    [] = [File || {File, error} <- Results],
    [Module || {_, {ok, Module}} <- Results].

write_app(Modules) ->
    {ok, [{application, Name, Keys}]} = file:consult("src/tokamak.app.src"),
    Application = {application, Name, lists:keyreplace(modules, 1, Keys, {modules, Modules})},
    file:write_file(
        filename:join(directory("ebin"), "tokamak.app"), io_lib:format("~p.~n", [Application])
    ).

summarize(Counts) ->
    Sum = fun(Key) -> lists:sum([proplists:get_value(Key, Of, 0) || Of <- Counts]) end,
    Line = io_lib:format("OTP ~s: ~b passed, ~b failed, ~b skipped, ~b cancelled", [
        erlang:system_info(otp_release) | [Sum(Key) || Key <- [pass, fail, skip, cancel]]
    ]),
    file:write_file(?SUMMARY, Line).

%%% Counts, beside what eunit prints itself

start(Options) -> eunit_listener:start(?MODULE, Options).

init(Options) -> proplists:get_value(counts_to, Options).

handle_begin(_Kind, _Data, State) -> State.

handle_end(_Kind, _Data, State) -> State.

handle_cancel(_Kind, _Data, State) -> State.

terminate({ok, Counts}, Pid) -> Pid ! {counts, Counts};
terminate({error, _Reason}, Pid) -> Pid ! {counts, []}.
