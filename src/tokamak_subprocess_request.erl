%% SPDX-License-Identifier: Apache-2.0
%% @doc What {@link tokamak_subprocess} asks the spawner for, as the native side reads it.
%% @private
-module(tokamak_subprocess_request).

-export([make/2, program/0, arguments/1, environment/1]).

-define(KILL_TIMEOUT, 2000).

%% @doc The request of a start whose arguments and options were checked.
-spec make([tokamak_subprocess:argument(), ...], map()) -> tuple().
make(Argv, Options) ->
    {ok, Arguments} = arguments(Argv),
    {ok, Changes} = environment(maps:get(env, Options, [])),
    {
        Arguments,
        base(Options),
        Changes,
        directory(Options),
        maps:get(stdin, Options, pipe),
        output(maps:get(stdout, Options, stream)),
        output(maps:get(stderr, Options, stream)),
        maps:get(kill_timeout, Options, ?KILL_TIMEOUT)
    }.

%% @doc The path of the spawner, which is made once.
-spec program() -> binary().
program() ->
    case persistent_term:get({?MODULE, program}, undefined) of
        undefined ->
            {ok, Program} = tokamak_os_text:encode(filename:join(code:priv_dir(tokamak), "tokamak_spawner")),
            persistent_term:put({?MODULE, program}, Program),
            Program;
        Program ->
            Program
    end.

%% @doc A program and its arguments, as bytes.
-spec arguments(term()) -> {ok, [binary(), ...]} | error.
arguments([_ | _] = Argv) ->
    try [tokamak_os_text:encode(Argument) || Argument <- Argv] of
        [{ok, <<>>} | _] ->
            error;
        Texts ->
            case lists:member(error, Texts) of
                true -> error;
                false -> {ok, [Text || {ok, Text} <- Texts]}
            end
    catch
        error:_ -> error
    end;
arguments(_) ->
    error.

%% @doc Changes of the environment, as bytes.
-spec environment(term()) -> {ok, [{binary(), binary() | false}]} | error.
environment(Changes) when is_list(Changes) ->
    try
        {ok, [variable(Change) || Change <- Changes]}
    catch
        error:_ -> error
    end;
environment(Changes) when is_map(Changes) ->
    environment(maps:to_list(Changes));
environment(_) ->
    error.

variable({Name, Value}) ->
    {ok, NativeName} = tokamak_os_text:encode(Name),
    true = NativeName =/= <<>>,
    nomatch = binary:match(NativeName, <<"=">>),
    case Value of
        false ->
            {NativeName, false};
        _ ->
            {ok, NativeValue} = tokamak_os_text:encode(Value),
            {NativeName, NativeValue}
    end.

%% The spawner knows the environment that the C process began with; os:putenv/2 does not change that one. So each
%% start names the whole environment, which is sent when it is another one than before.
base(#{clear_env := true}) ->
    undefined;
base(_) ->
    tokamak_os_environment:encode().

directory(#{cd := Path}) ->
    {ok, Native} = tokamak_fd:native_path(Path),
    Native;
directory(_) ->
    undefined.

output({file, Path}) ->
    {ok, Native} = tokamak_fd:native_path(Path),
    {file, Native};
output(Output) ->
    Output.
